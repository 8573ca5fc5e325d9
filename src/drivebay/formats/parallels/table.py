"""The block table of an expanding file, read whole: which entries point where they must not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Files, Layer, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.parallels.header import ENTRY_SIZE, HEADER_SIZE, Header, read_header
from drivebay.model import SECTOR

_CHUNK_ENTRIES = 1 << 18
Numbers = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


class ExpandingFile(NamedTuple):
    """One expanding file of an image; ``name`` is "" for the image itself."""

    name: str
    files: Files
    header: Header
    length: int  # bytes of the disk in it


class Entries(NamedTuple):
    """Entries that aren't 0, as parallel arrays: their blocks, and where they point in the file."""

    blocks: Numbers
    offsets: Numbers

    def where(self, chosen: Flags) -> Entries:
        """Those that are chosen."""
        return Entries(self.blocks[chosen], self.offsets[chosen])

    def place(self, index: int) -> int:
        """Where an entry lies in the file."""
        return HEADER_SIZE + ENTRY_SIZE * int(self.blocks[index])


class TableScan(NamedTuple):
    """``bad`` entries point into the header or the table, or out of the file; ``shared`` ones to bytes
    that the entry before them has too; ``beyond`` are behind the disk's end. ``inside`` ones point into
    what the table has behind the disk's end: then it isn't that long, and ``beyond`` are no entries.
    ``early`` ones point behind the table, but before the place where the header says that blocks begin.
    ``end`` is where the last block ends, ``blocks`` how many there are.
    """

    bad: Entries
    shared: Entries
    beyond: Entries
    inside: Entries
    early: Entries
    end: int
    blocks: int


def expanding_files(files: Files, layer: Layer) -> Iterator[ExpandingFile]:
    """The expanding files of an opened image."""
    for segment in layer.segments:
        if isinstance(segment, Table):
            name = layer.sources[segment.source - 1] if segment.source else ""
            file = files.beside(name) if name else files
            yield ExpandingFile(name, file, read_header(file), segment.length)


def scan(file: ExpandingFile) -> TableScan:
    """Judge all entries; memory goes by the number of blocks in use. Raises StorageError."""
    entries, header = _entries(file), file.header
    beyond = entries.blocks >= -(-file.length // header.block)
    used = entries.where(~beyond)
    bad = _is_bad(file, used)
    good = used.where(~bad)
    order = np.argsort(good.offsets, kind="stable")
    shared = np.zeros(len(order), np.bool_)
    shared[order[1:]] = np.diff(good.offsets[order]) < header.block
    last = int(good.offsets[order[-1]]) + header.block if len(order) else header.first_block
    inside = good.where(good.offsets < header.table_end)
    rest = entries.where(beyond & np.bool_(not len(inside.blocks)))
    begin = header.behind_table(shortened=bool(len(inside.blocks)))
    early = good.where((good.offsets >= begin) & (good.offsets < header.data_offset * SECTOR))
    return TableScan(used.where(bad), good.where(shared), rest, inside, early, last, len(order))


def _is_bad(file: ExpandingFile, used: Entries) -> Flags:
    """A disk's last block may be cut short in the file, by what the disk doesn't have of it."""
    header = file.header
    lengths = np.full(len(used.blocks), header.block, np.uint64)
    lengths[used.blocks == file.length // header.block] = file.length % header.block
    bad: Flags = (used.offsets < header.table_needed) | (used.offsets + lengths > file.files.size)
    return bad


def _entries(file: ExpandingFile) -> Entries:
    parts = list(_chunks(file))
    return Entries(
        np.concatenate([part.blocks for part in parts]), np.concatenate([part.offsets for part in parts])
    )


def _chunks(file: ExpandingFile) -> Iterator[Entries]:
    for first in range(0, file.header.entries, _CHUNK_ENTRIES):
        offset = HEADER_SIZE + ENTRY_SIZE * first
        length = ENTRY_SIZE * min(_CHUNK_ENTRIES, file.header.entries - first)
        stored = file.files.read(offset, length)
        if len(stored) < length:
            message = "the file became shorter while its table was read; try again when nothing writes to it"
            raise StorageError(ErrorKind.IO, message, path=file.files.path, offset=offset, operation="check")
        raw = np.frombuffer(stored, "<u4").astype(np.uint64)
        used = np.flatnonzero(raw)
        yield Entries(used.astype(np.uint64) + np.uint64(first), raw[used] * np.uint64(file.header.scale))
