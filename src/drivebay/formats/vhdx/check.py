"""What opening a VHDX image leaves unread: both copies of everything, the log, the BAT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from drivebay.blockmap import Files, Layer
from drivebay.formats.vhdx.header import HEADER_OFFSETS, MIB
from drivebay.formats.vhdx.image import ENTRY_SIZE, ImageParts, read_parts
from drivebay.formats.vhdx.metadata import PARENT_LOCATOR
from drivebay.formats.vhdx.regions import TABLE_OFFSETS, TABLE_SIZE, is_sound
from drivebay.formats.vhdx.scan import BatScan, Faults
from drivebay.model import Finding, Severity


class _Kind(NamedTuple):
    flags: str
    severity: Severity
    code: str
    what: str


_KINDS = (
    _Kind("state", Severity.ERROR, "state", "have a state or an offset that can't be"),
    _Kind("outside", Severity.ERROR, "outside", "point outside the file"),
    _Kind("overlap", Severity.ERROR, "overlap", "point to where something else lies"),
    _Kind("no_bitmap", Severity.ERROR, "no-bitmap", "are partially present, but have no sector bitmap"),
    _Kind(
        "bitmap", Severity.WARNING, "bitmap", "are for sector bitmaps, but have an impossible state or place"
    ),
    _Kind("reserved", Severity.NOTE, "reserved", "have reserved bits set"),
)


class _Tally:
    """How many entries have one fault, and which was the first."""

    def __init__(self, kind: _Kind) -> None:
        self.kind = kind
        self.count = 0
        self.number = 0
        self.value = 0

    def add(self, faults: Faults) -> None:
        found = np.flatnonzero(getattr(faults, self.kind.flags))
        if len(found) and not self.count:
            self.number, self.value = faults.first + int(found[0]), int(faults.raw[found[0]])
        self.count += len(found)

    def findings(self, parts: ImageParts) -> Iterator[Finding]:
        if self.count:
            first = f"the first is number {self.number}: {self.value:#018x}"
            message = f"BAT entries that {self.kind.what}: {self.count}; {first}"
            offset = parts.bat.offset + self.number * ENTRY_SIZE
            yield Finding(self.kind.severity, self.kind.code, message, offset)


def check(files: Files, _layer: Layer) -> Iterator[Finding]:
    """Findings about a VHDX image that can be opened; raises StorageError if it can't be read."""
    parts = read_parts(files)
    yield from _check_log(parts)
    yield from _check_copies(parts)
    yield from _check_parent(parts)
    scan = BatScan(parts)
    tallies = [_Tally(kind) for kind in _KINDS]
    for faults in scan.slices():
        for tally in tallies:
            tally.add(faults)
    for tally in tallies:
        yield from tally.findings(parts)
    unused = len(scan.used) - int(np.count_nonzero(scan.used))
    if unused:
        yield Finding(
            Severity.NOTE, "unused", f"{unused * MIB} bytes of the file belong to no block or region"
        )


def _check_log(parts: ImageParts) -> Iterator[Finding]:
    header = parts.headers.current
    if header.dirty:
        message = (
            "the log has to be replayed: the last writer did not close the image; opening it for writing or "
            "repairing it does so, reading goes through the log"
        )
        yield Finding(Severity.WARNING, "dirty-log", message, header.log_offset)


def _check_copies(parts: ImageParts) -> Iterator[Finding]:
    for offset, header in zip(HEADER_OFFSETS, parts.headers.copies, strict=True):
        if header is None:
            message = "one of the two headers is damaged; the other one is used"
            yield Finding(Severity.WARNING, "header-copy", message, offset)
    first, second = (parts.files.read(offset, TABLE_SIZE) for offset in TABLE_OFFSETS)
    for offset, table in zip(TABLE_OFFSETS, (first, second), strict=True):
        if not is_sound(table):
            message = "one of the two region tables is damaged; the other one is used"
            yield Finding(Severity.WARNING, "region-copy", message, offset)
    if first != second and is_sound(first) and is_sound(second):
        message = "the two region tables differ; the first one is used"
        yield Finding(Severity.WARNING, "region-copy", message, TABLE_OFFSETS[1])


def _check_parent(parts: ImageParts) -> Iterator[Finding]:
    locator, offset = parts.metadata.locator, parts.metadata_region.offset
    if locator is not None and not locator.names:
        message = "the image is differencing, but records no path of its parent"
        yield Finding(Severity.ERROR, "no-parent", message, offset)
    if locator is None and parts.metadata.item(PARENT_LOCATOR) is not None:
        message = "the image is a base, but has a parent locator, which is ignored"
        yield Finding(Severity.WARNING, "parent-of-base", message, offset)
