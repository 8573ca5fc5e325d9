"""What opening a VDI image leaves unread: the block map, held against the file and the counter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drivebay.blockmap import Files, Layer
from drivebay.formats.vdi.header import ENTRY_SIZE, Header, ImageType
from drivebay.formats.vdi.rules import read_header
from drivebay.formats.vdi.scan import Chunk, Flags, MapScan
from drivebay.model import NULL_UUID, Finding, Severity


class _Fault:
    """How many entries have one fault, and which was the first."""

    def __init__(self, severity: Severity, code: str, what: str) -> None:
        self.severity = severity
        self.code = code
        self.what = what
        self.count = 0
        self.block = 0
        self.value = 0

    def add(self, chunk: Chunk, faulty: Flags) -> None:
        """Take in the entries of ``chunk`` that have this fault."""
        places = np.flatnonzero(faulty)
        if len(places) and not self.count:
            self.block, self.value = chunk.first + int(places[0]), int(chunk.entries[places[0]])
        self.count += len(places)

    def findings(self, header: Header) -> Iterator[Finding]:
        if self.count:
            first = f"the first is that of block {self.block}: {self.value}"
            offset = header.map_offset + self.block * ENTRY_SIZE
            message = f"map entries that {self.what}: {self.count}; {first}"
            yield Finding(self.severity, self.code, message, offset)


def check(files: Files, _layer: Layer) -> Iterator[Finding]:
    """Findings about a VDI image whose header was accepted; raises StorageError if it can't be read."""
    header = read_header(files)
    yield from _check_parent(header)
    scan = MapScan(files, header)
    outside = _Fault(Severity.ERROR, "outside", "point outside the file")
    doubled = _Fault(Severity.ERROR, "doubled", "point to a block which another one points to")
    unreachable = _Fault(Severity.WARNING, "unreachable", "aren't free, behind the disk's end")
    for chunk in scan.chunks():
        outside.add(chunk, chunk.outside)
        doubled.add(chunk, chunk.doubled)
        unreachable.add(chunk, chunk.unreachable)
    for fault in (outside, doubled, unreachable):
        yield from fault.findings(header)
    yield from _check_counter(scan)
    yield from _check_space(scan, files.size)


def _check_parent(header: Header) -> Iterator[Finding]:
    has_parent = header.parent_uuid != NULL_UUID
    if header.type == ImageType.DIFFERENCING and not has_parent:
        message = "the image is differencing but names no parent: only its own blocks can be read"
        yield Finding(Severity.ERROR, "no-parent", message, offset=header.parent_offset)
    if header.type in (ImageType.DYNAMIC, ImageType.FIXED) and has_parent:
        message = f"the image is a base but names the parent {header.parent_uuid}, which is ignored"
        yield Finding(Severity.WARNING, "parent-of-base", message, offset=header.parent_offset)


def _check_counter(scan: MapScan) -> Iterator[Finding]:
    counter = scan.header.blocks_allocated
    message = f"the header counts {counter} blocks, but the map uses the file up to block {scan.extent}"
    if counter < scan.extent:
        danger = "drivebay counts again, other tools would overwrite data"
        yield Finding(
            Severity.WARNING, "counter-low", f"{message}: {danger}", offset=scan.header.counter_offset
        )
    elif counter > scan.extent:
        yield Finding(Severity.NOTE, "counter-high", message, offset=scan.header.counter_offset)


def _check_space(scan: MapScan, file_size: int) -> Iterator[Finding]:
    header = scan.header
    unused = scan.extent - int(np.count_nonzero(scan.used))
    if unused:
        yield Finding(Severity.NOTE, "unused", f"blocks of the file that no map entry points to: {unused}")
    end = header.data_offset + max(scan.extent, header.blocks_allocated) * header.unit
    if file_size > end:
        message = f"{file_size - end} bytes follow the last block"
        yield Finding(Severity.NOTE, "trailing", message, offset=end)
