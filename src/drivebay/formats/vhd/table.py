"""A VHD's block allocation table, read whole for checks and repairs, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhd.footer import FOOTER_SIZE
from drivebay.formats.vhd.header import ABSENT, ENTRY_SIZE, HEADER_SIZE, Header
from drivebay.formats.vhd.rules import MIN_BLOCK, Image
from drivebay.formats.vhd.sizes import MAX_SIZE
from drivebay.model import SECTOR

_CHUNK_ENTRIES = 1 << 18
Entries = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Fault:
    """The blocks whose entries have one fault: how many, and the first with its entry."""

    what: str
    count: int = 0
    block: int = 0
    entry: int = 0

    def add(self, blocks: Entries, entries: Entries) -> None:
        """Take in more of them."""
        if len(blocks) and not self.count:
            self.block, self.entry = int(blocks[0]), int(entries[0])
        self.count += len(blocks)

    @property
    def message(self) -> str:
        """All of it, for humans."""
        first = f"the first is that of block {self.block}: {self.entry}"
        return f"table entries that {self.what}: {self.count}; {first}"


@dataclass(slots=True)
class TableScan:
    """What is wrong in a table, which entries are to blame, and where the last block ends.

    ``outside`` and ``overlapping`` hold positions in the table; of two blocks that overlap, the later one
    in the file counts as the wrong one. Where blocks lie in what the table has behind the disk's end
    (``inside_table``), it isn't that long, and nothing is ``unreachable``. Memory: 24 bytes for each block
    that the file has room for.
    """

    header: Header
    outside: Fault = field(default_factory=lambda: Fault("point outside the file"))
    inside_headers: Fault = field(default_factory=lambda: Fault("point into the headers or the table"))
    inside_table: Fault = field(default_factory=lambda: Fault("point into the table, which is too long"))
    overlapping: Fault = field(default_factory=lambda: Fault("point into another one's block"))
    unreachable: Fault = field(default_factory=lambda: Fault("aren't free, behind the disk's end"))
    wrong: list[Entries] = field(default_factory=list)
    used: int = 0
    end: int = 0


class _Scanner:
    """One pass over the table."""

    def __init__(self, image: Image, header: Header, file_size: int) -> None:
        self.scan = TableScan(header)
        self._header = header
        self._needed = header.blocks(image.size)
        self._last_bytes = image.size - (self._needed - 1) * header.block_size
        self._file_size = file_size
        self._room = file_size // header.unit + 2
        self._first = _metadata_end(image, header)
        self._blocks: list[Entries] = []
        self._entries: list[Entries] = []

    def add(self, first: int, entries: Entries) -> None:
        blocks = np.arange(first, first + len(entries), dtype=np.int64)
        allocated = entries != ABSENT
        beyond = blocks >= self._needed
        self.scan.unreachable.add(blocks[allocated & beyond], entries[allocated & beyond])
        outside = allocated & ~beyond & self._is_outside(blocks, entries)
        self._fault(self.scan.outside, outside, blocks, entries)
        within = allocated & ~beyond & ~outside & (entries * SECTOR < self._first)
        self._fault(self.scan.inside_headers, within, blocks, entries)
        kept = allocated & ~beyond & ~outside & ~within
        inside = kept & (entries * SECTOR < self._header.table_end)
        self.scan.inside_table.add(blocks[inside], entries[inside])
        self._keep(blocks[kept], entries[kept])

    def _is_outside(self, blocks: Entries, entries: Entries) -> Flags:
        lengths = np.where(blocks == self._needed - 1, self._last_bytes, self._header.block_size)
        outside: Flags = entries * SECTOR + self._header.bitmap_size + lengths > self._file_size
        return outside

    def _fault(self, fault: Fault, which: Flags, blocks: Entries, entries: Entries) -> None:
        fault.add(blocks[which], entries[which])
        if which.any():
            self.scan.wrong.append(blocks[which])

    def _keep(self, blocks: Entries, entries: Entries) -> None:
        """Remember blocks that lie in the file, as far as there is room for so many."""
        room = self._room - self.scan.used
        if len(blocks) > room:  # more blocks than the file can hold: these must overlap
            self.scan.overlapping.add(blocks[room:], entries[room:])
            self.scan.wrong.append(blocks[room:])
        self.scan.used += min(len(blocks), room)
        self._blocks.append(blocks[:room])
        self._entries.append(entries[:room])

    def finish(self) -> TableScan:
        blocks = np.concatenate([*self._blocks, np.zeros(0, np.int64)])
        entries = np.concatenate([*self._entries, np.zeros(0, np.int64)])
        order = np.argsort(entries, kind="stable")
        blocks, entries = blocks[order], entries[order]
        close = np.zeros(len(entries), np.bool_)
        close[1:] = np.diff(entries) * SECTOR < self._header.unit
        self._fault(self.scan.overlapping, close, blocks, entries)
        if self.scan.inside_table.count:
            self.scan.unreachable.count = 0
        if len(entries):
            self.scan.end = min(int(entries[-1]) * SECTOR + self._header.unit, self._file_size)
        return self.scan


def scan_table(files: Files, image: Image, header: Header) -> TableScan:
    """Read the whole table. Raises StorageError if it can't be read."""
    scanner = _Scanner(image, header, files.size)
    for first, entries in read_table(files, header):
        scanner.add(first, entries)
    return scanner.finish()


def read_table(files: Files, header: Header) -> Iterator[tuple[int, Entries]]:
    """The entries that are in the file, chunk by chunk, each with the number of its first."""
    in_file = (files.size - header.table_offset) // ENTRY_SIZE
    entries = min(header.entries, in_file, MAX_SIZE // MIN_BLOCK)
    for first in range(0, entries, _CHUNK_ENTRIES):
        offset = header.table_offset + first * ENTRY_SIZE
        length = min(_CHUNK_ENTRIES, entries - first) * ENTRY_SIZE
        data = files.read(offset, length)
        if len(data) < length:
            message = "the file became shorter while its table was read; try again when nothing writes to it"
            raise StorageError(ErrorKind.IO, message, path=files.path, offset=offset, operation="check")
        yield first, np.frombuffer(data, dtype=">u4").astype(np.int64)


def _metadata_end(image: Image, header: Header) -> int:
    needed = header.table_offset + header.blocks(image.size) * ENTRY_SIZE
    return max(needed, image.footer.data_offset + HEADER_SIZE, FOOTER_SIZE)
