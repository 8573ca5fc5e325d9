"""The metadata region: a table of items, and the items (MS-VHDX 2.6)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.vhdx.header import MIB
from drivebay.formats.vhdx.locator import Locator, read_locator
from drivebay.formats.vhdx.refusal import refusal, require, require_known
from drivebay.formats.vhdx.regions import Region

TABLE_SIZE = 64 << 10
MAX_ITEMS = 2047
MAX_USER_ITEMS = 1024
MIN_BLOCK = MIB
MAX_BLOCK = 256 * MIB
MAX_SIZE = 64 << 40
SECTOR_SIZES = (512, 4096)

FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
DISK_ID = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL_SECTOR = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT_LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")

IS_USER, IS_VIRTUAL_DISK, IS_REQUIRED = 1, 2, 4
LEAVE_ALLOCATED, HAS_PARENT = 1, 2

_SIGNATURE = b"metadata"
_HEADER = struct.Struct("<8sHH20s")
_ENTRY = struct.Struct("<16sIIII")
_FLAGS = {
    FILE_PARAMETERS: IS_REQUIRED,
    DISK_SIZE: IS_VIRTUAL_DISK | IS_REQUIRED,
    DISK_ID: IS_VIRTUAL_DISK | IS_REQUIRED,
    LOGICAL_SECTOR: IS_VIRTUAL_DISK | IS_REQUIRED,
    PHYSICAL_SECTOR: IS_VIRTUAL_DISK | IS_REQUIRED,
    PARENT_LOCATOR: IS_REQUIRED,
}
_FIXED = {
    FILE_PARAMETERS: (struct.Struct("<II"), "file parameters"),
    DISK_SIZE: (struct.Struct("<Q"), "virtual disk size"),
    DISK_ID: (struct.Struct("<16s"), "virtual disk id"),
    LOGICAL_SECTOR: (struct.Struct("<I"), "logical sector size"),
    PHYSICAL_SECTOR: (struct.Struct("<I"), "physical sector size"),
}


class Item(NamedTuple):
    """An entry of the table: ``offset`` within the region, ``place`` of the entry in the file."""

    guid: UUID
    offset: int
    length: int
    flags: int
    place: int

    @property
    def end(self) -> int:
        """Where the item ends within the region."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Metadata:
    """The known items; sizes in bytes. ``locator`` is that of differencing images only."""

    items: tuple[Item, ...]
    block_size: int
    flags: int
    size: int
    disk_id: UUID
    logical_sector: int
    physical_sector: int
    locator: Locator | None = None

    @property
    def has_parent(self) -> bool:
        """Whether the image is differencing."""
        return bool(self.flags & HAS_PARENT)

    @property
    def fixed(self) -> bool:
        """Whether all blocks are to stay allocated."""
        return bool(self.flags & LEAVE_ALLOCATED) and not self.has_parent

    @property
    def chunk_ratio(self) -> int:
        """Blocks that share one sector bitmap block."""
        return (self.logical_sector << 23) // self.block_size

    @property
    def blocks(self) -> int:
        """Blocks that the disk needs."""
        return -(-self.size // self.block_size)

    @property
    def bat_entries(self) -> int:
        """Entries that the BAT needs (MS-VHDX 2.5)."""
        if self.has_parent:
            return -(-self.blocks // self.chunk_ratio) * (self.chunk_ratio + 1)
        return self.blocks + (self.blocks - 1) // self.chunk_ratio

    def item(self, guid: UUID) -> Item | None:
        """The system item called ``guid``."""
        return next((i for i in self.items if i.guid == guid and not i.flags & IS_USER), None)


def pack(items: Sequence[tuple[UUID, bytes]]) -> bytes:
    """The table and the items behind it, each at a multiple of 16 bytes."""
    table, data = b"", b""
    for guid, value in items:
        table += pack_entry(guid, TABLE_SIZE + len(data), len(value))
        data += value.ljust(len(value) + -len(value) % 16, b"\0")
    table = _HEADER.pack(_SIGNATURE, 0, len(items), bytes(20)) + table
    return table.ljust(TABLE_SIZE, b"\0") + data


def pack_entry(guid: UUID, offset: int, length: int) -> bytes:
    """The table's entry for a known item."""
    return _ENTRY.pack(guid.bytes_le, offset, length, _FLAGS[guid], 0)


def read_metadata(files: Files, region: Region) -> Metadata:
    """All known items, checked (rules X9 to X14). Raises StorageError."""
    items = _read_table(files, region)
    _check_items(files, region, items)
    block_size, flags = _fixed(files, region, items, FILE_PARAMETERS)
    (disk_id,) = _fixed(files, region, items, DISK_ID)
    found = Metadata(
        items=items,
        block_size=block_size,
        flags=flags,
        size=_fixed(files, region, items, DISK_SIZE)[0],
        disk_id=UUID(bytes_le=disk_id),
        logical_sector=_fixed(files, region, items, LOGICAL_SECTOR)[0],
        physical_sector=_fixed(files, region, items, PHYSICAL_SECTOR)[0],
        locator=_parent(files, region, items, flags),
    )
    _check_values(files, region, found)
    return found


def _read_table(files: Files, region: Region) -> tuple[Item, ...]:
    signature, _, count, _ = _HEADER.unpack(files.read(region.offset, _HEADER.size))
    require(
        signature == _SIGNATURE and count <= MAX_ITEMS,
        files,
        region.offset,
        f"VHDX metadata table: the signature is {signature!r} with {count} entries, but it must be "
        f"{_SIGNATURE!r} with at most {MAX_ITEMS}",
    )
    start = region.offset + _HEADER.size
    table = files.read(start, count * _ENTRY.size)
    found = []
    for where in range(0, count * _ENTRY.size, _ENTRY.size):
        guid, offset, length, flags, _ = _ENTRY.unpack_from(table, where)
        found.append(Item(UUID(bytes_le=guid), offset, length, flags, start + where))
    return tuple(found)


def _check_items(files: Files, region: Region, items: Sequence[Item]) -> None:
    names = {(item.guid, item.flags & IS_USER) for item in items}
    require(len(names) == len(items), files, region.offset, "VHDX metadata table: two entries have one id")
    users = sum(item.flags & IS_USER for item in items)
    require(
        users <= MAX_USER_ITEMS,
        files,
        region.offset,
        f"VHDX metadata table: there are {users} user items, but {MAX_USER_ITEMS} is the most",
    )
    for item in items:
        _check_item(files, region, item)
    placed = sorted((item.offset, item.end) for item in items if item.length)
    for (_, end), (begin, _) in itertools.pairwise(placed):
        require(
            end <= begin,
            files,
            region.offset + begin,
            f"VHDX metadata: an item that ends at {end} overlaps one that begins at {begin}",
        )


def _check_item(files: Files, region: Region, item: Item) -> None:
    inside = item.length <= MIB and item.end <= region.length
    require(
        inside and (item.offset >= TABLE_SIZE or item.length == item.offset == 0),
        files,
        item.place + 16,
        f"VHDX metadata: item {item.guid} has {item.length} bytes at {item.offset}, which is not between "
        f"the table's {TABLE_SIZE} bytes and the region's end at {region.length}",
    )
    known = item.guid in _FLAGS and not item.flags & IS_USER
    require_known(
        known or not item.flags & IS_REQUIRED,
        files,
        item.place,
        f"VHDX metadata: item {item.guid} is marked as required, but drivebay doesn't know it",
    )


def _find(items: Sequence[Item], guid: UUID) -> Item | None:
    return next((item for item in items if item.guid == guid and not item.flags & IS_USER), None)


def _fixed(files: Files, region: Region, items: Sequence[Item], guid: UUID) -> tuple[Any, ...]:
    layout, name = _FIXED[guid]
    item = _find(items, guid)
    if item is None or item.length < layout.size:
        size = "missing" if item is None else f"{item.length} bytes long"
        what = f"VHDX metadata: the {name} item is {size}, but it takes {layout.size} bytes"
        raise refusal(files, ErrorKind.CORRUPT, region.offset if item is None else item.place, what)
    return layout.unpack(files.read(region.offset + item.offset, layout.size))


def _parent(files: Files, region: Region, items: Sequence[Item], flags: int) -> Locator | None:
    if not flags & HAS_PARENT:
        return None
    item = _find(items, PARENT_LOCATOR)
    if item is None:
        what = "VHDX metadata: the image has a parent, but no parent locator"
        raise refusal(files, ErrorKind.CORRUPT, region.offset, what)
    return read_locator(files, region.offset + item.offset, item.length)


def _check_values(files: Files, region: Region, found: Metadata) -> None:
    def place(guid: UUID) -> int:
        item = found.item(guid)
        return region.offset + (item.offset if item else 0)

    block = found.block_size
    require(
        MIN_BLOCK <= block <= MAX_BLOCK and block & (block - 1) == 0,
        files,
        place(FILE_PARAMETERS),
        f"VHDX metadata: the block size is {block}, but it must be a power of two from 1 MiB to 256 MiB",
    )
    for guid, size, name in (
        (LOGICAL_SECTOR, found.logical_sector, "logical"),
        (PHYSICAL_SECTOR, found.physical_sector, "physical"),
    ):
        require(
            size in SECTOR_SIZES,
            files,
            place(guid),
            f"VHDX metadata: the {name} sector size is {size}, but it must be 512 or 4096",
        )
    require(
        0 < found.size <= MAX_SIZE and found.size % found.logical_sector == 0,
        files,
        place(DISK_SIZE),
        f"VHDX metadata: the disk size is {found.size}, but it must be a multiple of "
        f"{found.logical_sector} up to 64 TiB, not 0",
    )
