"""What opening a VDI image leaves unread: the block map, held against the file and the counter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Files, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.header import COUNTER_OFFSET, ENTRY_SIZE, ZERO, Header, ImageType
from drivebay.formats.vdi.rules import read_header
from drivebay.model import NULL_UUID, Finding, Severity

_CHUNK_ENTRIES = 1 << 18
_PARENT_OFFSET = 424
Entries = npt.NDArray[np.int64]


class _Fault:
    """How many entries have one fault, and which was the first."""

    def __init__(self, severity: Severity, code: str, what: str) -> None:
        self.severity = severity
        self.code = code
        self.what = what
        self.count = 0
        self.block = 0
        self.value = 0

    def add(self, blocks: Entries, values: Entries) -> None:
        if len(blocks) and not self.count:
            self.block, self.value = int(blocks[0]), int(values[0])
        self.count += len(blocks)

    def findings(self, header: Header) -> Iterator[Finding]:
        if self.count:
            first = f"the first is that of block {self.block}: {self.value}"
            offset = header.map_offset + self.block * ENTRY_SIZE
            message = f"map entries that {self.what}: {self.count}; {first}"
            yield Finding(self.severity, self.code, message, offset)


class _MapScan:
    """One pass over the map. Memory: one byte for each block that the file has room for."""

    def __init__(self, header: Header, file_size: int) -> None:
        self.header = header
        room = file_size - header.data_offset
        self.units = min(header.blocks, max(room, 0) // header.unit)
        self.used = np.zeros(self.units, dtype=np.bool_)
        self.outside = _Fault(Severity.ERROR, "outside", "point outside the file")
        self.doubled = _Fault(Severity.ERROR, "doubled", "point to a block which another one points to")
        self.unreachable = _Fault(Severity.WARNING, "unreachable", "aren't free, behind the disk's end")

    def add(self, first: int, entries: Entries) -> None:
        """Take in the entries of the blocks from ``first`` on."""
        blocks = np.arange(first, first + len(entries), dtype=np.int64)
        allocated = entries < ZERO
        beyond = blocks >= self.header.blocks_needed
        self.unreachable.add(blocks[allocated & beyond], entries[allocated & beyond])
        outside = allocated & ~beyond & (entries >= self.units)
        self.outside.add(blocks[outside], entries[outside])
        inside = allocated & ~beyond & ~outside
        self._use(blocks[inside], entries[inside])

    def _use(self, blocks: Entries, units: Entries) -> None:
        repeated = np.ones(len(units), dtype=np.bool_)
        repeated[np.unique(units, return_index=True)[1]] = False
        repeated |= self.used[units]
        self.doubled.add(blocks[repeated], units[repeated])
        self.used[units] = True

    @property
    def extent(self) -> int:
        """Blocks in the file up to the last used one."""
        return self.units - int(np.argmax(self.used[::-1])) if self.used.any() else 0


def check(files: Files, _layer: Layer) -> Iterator[Finding]:
    """Findings about a VDI image whose header was accepted; raises StorageError if it can't be read."""
    header = read_header(files)
    yield from _check_parent(header)
    scan = _MapScan(header, files.size)
    for first in range(0, header.blocks, _CHUNK_ENTRIES):
        scan.add(first, _read_map(files, header, first))
    for fault in (scan.outside, scan.doubled, scan.unreachable):
        yield from fault.findings(header)
    yield from _check_counter(scan)
    yield from _check_space(scan, files.size)


def _read_map(files: Files, header: Header, first: int) -> Entries:
    offset = header.map_offset + first * ENTRY_SIZE
    length = min(_CHUNK_ENTRIES, header.blocks - first) * ENTRY_SIZE
    data = files.read(offset, length)
    if len(data) < length:
        message = "the file became shorter while its map was read; check it again when nothing writes to it"
        raise StorageError(ErrorKind.IO, message, path=files.path, offset=offset, operation="check")
    return np.frombuffer(data, dtype="<u4").astype(np.int64)


def _check_parent(header: Header) -> Iterator[Finding]:
    has_parent = header.parent_uuid != NULL_UUID
    if header.type == ImageType.DIFFERENCING and not has_parent:
        message = "the image is differencing but names no parent: only its own blocks can be read"
        yield Finding(Severity.ERROR, "no-parent", message, offset=_PARENT_OFFSET)
    if header.type in (ImageType.DYNAMIC, ImageType.FIXED) and has_parent:
        message = f"the image is a base but names the parent {header.parent_uuid}, which is ignored"
        yield Finding(Severity.WARNING, "parent-of-base", message, offset=_PARENT_OFFSET)


def _check_counter(scan: _MapScan) -> Iterator[Finding]:
    counter = scan.header.blocks_allocated
    message = f"the header counts {counter} blocks, but the map uses the file up to block {scan.extent}"
    if counter < scan.extent:
        danger = "drivebay counts again, other tools would overwrite data"
        yield Finding(Severity.WARNING, "counter-low", f"{message}: {danger}", offset=COUNTER_OFFSET)
    elif counter > scan.extent:
        yield Finding(Severity.NOTE, "counter-high", message, offset=COUNTER_OFFSET)


def _check_space(scan: _MapScan, file_size: int) -> Iterator[Finding]:
    header = scan.header
    unused = scan.extent - int(np.count_nonzero(scan.used))
    if unused:
        yield Finding(Severity.NOTE, "unused", f"blocks of the file that no map entry points to: {unused}")
    end = header.data_offset + max(scan.extent, header.blocks_allocated) * header.unit
    if file_size > end:
        message = f"{file_size - end} bytes follow the last block"
        yield Finding(Severity.NOTE, "trailing", message, offset=end)
