"""The dynamic header of sparse VHD images: its fields, and the table of parent locators in it."""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from drivebay.formats.vhd.footer import sealed
from drivebay.model import SECTOR

COOKIE = b"cxsparse"
HEADER_SIZE = 1024
VERSION = 0x00010000
NO_NEXT = 0xFFFFFFFFFFFFFFFF
ENTRY_SIZE: Literal[4] = 4
ABSENT = 0xFFFFFFFF
LOCATORS = 8
NAME_SIZE = 512

CHECKSUM_OFFSET = 36
PARENT_UUID_OFFSET = 40
LOCATORS_OFFSET = 576
_LAYOUT = struct.Struct(">8s QQ I I I I 16s I I 512s 192s 256s")
_PARENT_UUID, _LOCATORS = 7, 11  # their places among the fields
_LOCATOR = struct.Struct(">4s I I I Q")


class Locator(NamedTuple):
    """Where a path of the parent lies in the file.

    ``space`` is a number of sectors by the specification, of bytes in the images of VirtualBox and others.
    """

    code: bytes
    space: int
    length: int
    reserved: int
    offset: int

    @property
    def room(self) -> int:
        """Bytes that are surely kept for the path, going by either reading of ``space``."""
        least = self.length + -self.length % SECTOR
        if self.space % SECTOR == 0:
            return max(self.space, least)
        return self.space * SECTOR if self.space < self.length <= self.space * SECTOR else least


NO_LOCATOR = Locator(bytes(4), 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Header:
    """The fields as stored, nothing of them checked. Offsets are bytes of the file."""

    cookie: bytes
    next_offset: int
    table_offset: int
    version: int
    entries: int
    block_size: int
    checksum: int
    parent_uuid: UUID
    parent_modified: int
    reserved: int
    parent_name: bytes
    locators: tuple[Locator, ...]
    rest: bytes

    @property
    def bitmap_size(self) -> int:
        """Bytes in front of each block: a bit for each sector, up to a whole sector."""
        size = self.block_size // SECTOR // 8
        return size + -size % SECTOR

    @property
    def unit(self) -> int:
        """What one block takes in the file."""
        return self.bitmap_size + self.block_size

    @property
    def table_end(self) -> int:
        """Where the block allocation table ends."""
        return self.table_offset + self.entries * ENTRY_SIZE

    def blocks(self, size: int) -> int:
        """Blocks that a disk of ``size`` bytes needs."""
        return -(-size // self.block_size)

    def pack(self) -> bytes:
        """The header's bytes, with a checksum that fits."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        values[_PARENT_UUID] = self.parent_uuid.bytes_le
        values[_LOCATORS] = b"".join(_LOCATOR.pack(*locator) for locator in self.locators)
        return sealed(_LAYOUT.pack(*values), CHECKSUM_OFFSET)


def unpack(data: bytes) -> Header:
    """The header in the first 1024 bytes of ``data``, unchecked; what is missing counts as zeros."""
    values = list(_LAYOUT.unpack(data[:HEADER_SIZE].ljust(HEADER_SIZE, b"\0")))
    values[_PARENT_UUID] = UUID(bytes_le=values[_PARENT_UUID])
    values[_LOCATORS] = tuple(Locator(*fields) for fields in _LOCATOR.iter_unpack(values[_LOCATORS]))
    return Header(*values)
