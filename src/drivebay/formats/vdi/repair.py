"""What would repair a VDI, told before anything is done.

Map entries that can't be right become free; a counter that is wrong is counted again; a base forgets the
parent that it never had. Two entries with one block: the first one keeps it, as in VirtualBox.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

import numpy as np

from drivebay.blockmap import Files, FileWrite, Layer, RepairStep
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.header import (
    COUNTER_OFFSET,
    ENTRY_SIZE,
    FREE,
    PARENT_OFFSET,
    Header,
    ImageType,
)
from drivebay.formats.vdi.rules import read_header
from drivebay.formats.vdi.scan import Chunk, Flags, MapScan
from drivebay.formats.vdi.version0 import REFUSAL
from drivebay.model import NULL_UUID, SECTOR


@dataclasses.dataclass
class _Fault:
    """Entries with one fault, to be freed: each sector of the map that has some is written once."""

    what: str
    loses: bool
    count: int = 0
    block: int = 0
    changes: list[FileWrite] = dataclasses.field(default_factory=list)

    def add(self, header: Header, chunk: Chunk, faulty: Flags) -> None:
        places = np.flatnonzero(faulty)
        if not len(places):
            return
        if not self.count:
            self.block = chunk.first + int(places[0])
        self.count += len(places)
        chunk.entries[places] = FREE
        per_sector = SECTOR // ENTRY_SIZE
        for sector in np.unique(places // per_sector):
            first = int(sector) * per_sector
            entries = chunk.entries[first : first + per_sector].astype("<u4").tobytes()
            offset = header.map_offset + (chunk.first + first) * ENTRY_SIZE
            self.changes.append(FileWrite(offset, entries))

    def steps(self) -> Iterator[RepairStep]:
        if self.count:
            message = (
                f"free {self.count} map entries that {self.what}; the first is that of block {self.block}"
            )
            yield RepairStep(message, tuple(self.changes), loses=self.loses)


def repair(files: Files, _layer: Layer) -> Iterator[RepairStep]:
    """The steps that make the image sound; each holds whether or not those before it were done.

    Raises StorageError: UNSUPPORTED for version 0.
    """
    header = read_header(files)
    if header.major == 0:
        raise StorageError(ErrorKind.UNSUPPORTED, REFUSAL, path=files.path, operation="repair")
    yield from _forget_parent(header)
    faults = (
        _Fault("aren't free, behind the disk's end", loses=False),
        _Fault("point outside the file (unless that can be restored, what they held is gone)", loses=True),
        _Fault("point to a block which an earlier one points to (only one can be right)", loses=True),
    )
    scan = MapScan(files, header)
    for chunk in scan.chunks():
        for fault, faulty in zip(faults, (chunk.unreachable, chunk.outside, chunk.doubled), strict=True):
            fault.add(header, chunk, faulty)
    yield from _count(header, scan.extent)
    for fault in faults:
        yield from fault.steps()


def _forget_parent(header: Header) -> Iterator[RepairStep]:
    if header.type in (ImageType.DYNAMIC, ImageType.FIXED) and header.parent_uuid != NULL_UUID:
        message = f"forget the parent {header.parent_uuid} of an image that has none"
        yield RepairStep(message, (FileWrite(PARENT_OFFSET, NULL_UUID.bytes_le),))


def _count(header: Header, extent: int) -> Iterator[RepairStep]:
    if header.blocks_allocated != extent:
        message = f"set the counter of allocated blocks from {header.blocks_allocated} to {extent}"
        yield RepairStep(message, (FileWrite(COUNTER_OFFSET, struct.pack("<I", extent)),))
