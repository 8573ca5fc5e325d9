"""One pass over a VDI's block map, chunk by chunk, which tells what can't be right in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.header import ENTRY_SIZE, ZERO, Header

_CHUNK_ENTRIES = 1 << 18
Entries = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Chunk(NamedTuple):
    """Entries of the blocks from ``first`` on, and which of them have which fault.

    ``outside``: points outside the file; ``doubled``: to a block which an earlier one points to;
    ``unreachable``: isn't free, behind the disk's end.
    """

    first: int
    entries: Entries
    outside: Flags
    doubled: Flags
    unreachable: Flags


class MapScan:
    """Memory: one byte for each block that the file has room for."""

    def __init__(self, files: Files, header: Header) -> None:
        self.header = header
        self._files = files
        room = files.size - header.data_offset
        self.units = min(header.blocks, max(room, 0) // header.unit)
        self.used = np.zeros(self.units, dtype=np.bool_)

    def chunks(self) -> Iterator[Chunk]:
        """The whole map, in order. Raises StorageError where it can't be read."""
        for first in range(0, self.header.blocks, _CHUNK_ENTRIES):
            yield self._judge(first, self._read(first))

    def _judge(self, first: int, entries: Entries) -> Chunk:
        blocks = np.arange(first, first + len(entries), dtype=np.int64)
        allocated = entries < ZERO
        beyond = blocks >= self.header.blocks_needed
        outside = allocated & ~beyond & (entries >= self.units)
        inside = allocated & ~beyond & ~outside
        doubled = np.zeros(len(entries), dtype=np.bool_)
        doubled[inside] = self._use(entries[inside])
        return Chunk(first, entries, outside, doubled, allocated & beyond)

    def _use(self, units: Entries) -> Flags:
        repeated = np.ones(len(units), dtype=np.bool_)
        repeated[np.unique(units, return_index=True)[1]] = False
        repeated |= self.used[units]
        self.used[units] = True
        return repeated

    def _read(self, first: int) -> Entries:
        header = self.header
        offset = header.map_offset + first * ENTRY_SIZE
        length = min(_CHUNK_ENTRIES, header.blocks - first) * ENTRY_SIZE
        data = self._files.read(offset, length)
        if len(data) < length:
            message = "the file became shorter while its map was read; try again when nothing writes to it"
            raise StorageError(ErrorKind.IO, message, path=self._files.path, offset=offset, operation="check")
        return np.frombuffer(data, dtype="<u4").astype(np.int64)

    @property
    def extent(self) -> int:
        """Blocks in the file up to the last used one, as far as the map was read."""
        return self.units - int(np.argmax(self.used[::-1])) if self.used.any() else 0
