"""The region table, of which the file has two copies (MS-VHDX 2.2.3)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from drivebay.blockmap import Files
from drivebay.formats.vhdx.header import MIB, Header, has_checksum, with_checksum
from drivebay.formats.vhdx.refusal import require, require_known

TABLE_OFFSETS = (192 << 10, 256 << 10)
TABLE_SIZE = 64 << 10
BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
MAX_ENTRIES = 2047

_SIGNATURE = b"regi"
_HEADER = struct.Struct("<4sIII")
_ENTRY = struct.Struct("<16sQII")
_NAMES = {BAT: "BAT", METADATA: "metadata"}


class Region(NamedTuple):
    """One region; ``offset`` and ``length`` in bytes."""

    guid: UUID
    offset: int
    length: int
    required: bool = True

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.offset + self.length

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the {_NAMES.get(self.guid, str(self.guid))} region"


def pack(regions: Sequence[Region]) -> bytes:
    """A copy of the table: 64 KiB, with their checksum."""
    entries = (_ENTRY.pack(r.guid.bytes_le, r.offset, r.length, r.required) for r in regions)
    table = _HEADER.pack(_SIGNATURE, 0, len(regions), 0) + b"".join(entries)
    return with_checksum(table.ljust(TABLE_SIZE, b"\0"))


def is_sound(table: bytes) -> bool:
    """Whether a copy has its signature, checksum, and a possible number of entries."""
    sized = len(table) == TABLE_SIZE and has_checksum(table, _SIGNATURE)
    return sized and _HEADER.unpack_from(table)[2] <= MAX_ENTRIES


def read_regions(files: Files, header: Header) -> dict[UUID, Region]:
    """The regions by GUID, from the first sound copy (rules X5 to X8). Raises StorageError."""
    for offset in TABLE_OFFSETS:
        table = files.read(offset, TABLE_SIZE)
        if is_sound(table):
            break
    require(
        is_sound(table),
        files,
        TABLE_OFFSETS[0],
        "neither copy of the VHDX region table has the right signature, CRC-32C and number of entries",
    )
    regions = _entries(files, table, offset)
    _check_known(files, regions, offset)
    _check_overlap(files, regions, header, offset)
    return {region.guid: region for region in regions}


def _entries(files: Files, table: bytes, at: int) -> list[Region]:
    regions = []
    for number in range(_HEADER.unpack_from(table)[2]):
        where = _HEADER.size + number * _ENTRY.size
        guid, offset, length, required = _ENTRY.unpack_from(table, where)
        region = Region(UUID(bytes_le=guid), offset, length, bool(required & 1))
        require(
            offset % MIB == 0 and offset >= MIB and length % MIB == 0,
            files,
            at + where,
            f"VHDX region table: {region.name} has {length} bytes at {offset}, but both numbers must be "
            f"multiples of {MIB}, and the offset not 0",
        )
        regions.append(region)
    return regions


def _check_known(files: Files, regions: Sequence[Region], at: int) -> None:
    guids = [region.guid for region in regions]
    require(len(set(guids)) == len(guids), files, at + 8, "VHDX region table: two entries have the same GUID")
    for known, name in _NAMES.items():
        require(known in guids, files, at + 8, f"VHDX region table: the {name} region is missing")
    for number, region in enumerate(regions):
        require_known(
            region.guid in _NAMES or not region.required,
            files,
            at + _HEADER.size + number * _ENTRY.size,
            f"VHDX region table: {region.name} is marked as required, but drivebay doesn't know it",
        )


def _check_overlap(files: Files, regions: Sequence[Region], header: Header, at: int) -> None:
    log = (header.log_offset, header.log_offset + header.log_length, "the log")
    parts = sorted([(r.offset, r.end, r.name) for r in regions if r.length] + [log] * bool(header.log_length))
    for (_, end, one), (begin, _, other) in itertools.pairwise(parts):
        require(
            end <= begin, files, at, f"VHDX region table: {one} ends at {end}, but {other} begins at {begin}"
        )
    for region in regions:
        require(
            region.guid not in _NAMES or 0 < region.length <= files.size - region.offset,
            files,
            at,
            f"VHDX region table: {region.name} has {region.length} bytes at {region.offset}, but the file "
            f"ends at {files.size}",
        )
