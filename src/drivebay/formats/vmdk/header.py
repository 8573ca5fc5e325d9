"""The header of a hosted sparse extent ("KDMV"): where its fields lie, and what they are called."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Literal

from drivebay.model import SECTOR

MAGIC = b"KDMV"
HEADER_SIZE = 512
GD_AT_END = (1 << 64) - 1
UNCLEAN_OFFSET = 72
FLAGS_OFFSET = 8
POINTER_OFFSET = 28
VALID_NEWLINES = 1
REDUNDANT = 2
ZEROED_GRAINS = 4
COMPRESSED = 0x10000
MARKERS = 0x20000
NEWLINES = b"\n \r\n"
DEFLATE = 1  # the header's name for it; the streams are RFC 1950
GRAIN_MARKER = 12
FOOTER_MARKER = 3
ENTRY_SIZE: Literal[4] = 4

_POINTER = struct.Struct("<QQ")
_LAYOUT = struct.Struct("<4sIIQQQQIQQQB4sH")


@dataclass(frozen=True, slots=True)
class Header:
    """The fields as stored; sizes and offsets count sectors of 512 bytes."""

    magic: bytes
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor_offset: int
    descriptor_size: int
    gtes: int
    redundant: int
    directory: int
    overhead: int
    unclean: int
    newlines: bytes
    compression: int

    @property
    def grain_size(self) -> int:
        """Bytes of a grain."""
        return self.grain * SECTOR

    @property
    def tables(self) -> int:
        """Grain tables that the capacity needs."""
        return tables_for(self.capacity, self.grain, self.gtes)

    @property
    def leaf(self) -> int:
        """Bytes of a grain table, in whole sectors."""
        return self.gtes * ENTRY_SIZE + -self.gtes * ENTRY_SIZE % SECTOR

    def at_end(self) -> Header:
        """The header of a file that ends with this one as its footer."""
        return replace(self, directory=GD_AT_END)

    def pack(self) -> bytes:
        """The header's sector."""
        fields = (getattr(self, name) for name in self.__slots__)
        return _LAYOUT.pack(*fields).ljust(HEADER_SIZE, b"\0")


def unpack(data: bytes) -> Header:
    """The header in the first bytes of a file, unchecked; what ``data`` lacks counts as zeros."""
    return Header(*_LAYOUT.unpack(data[: _LAYOUT.size].ljust(_LAYOUT.size, b"\0")))


def pointer_to(sector: int, sectors: int) -> bytes:
    """The two fields at `POINTER_OFFSET`: where the descriptor lies, and how much room it has."""
    return _POINTER.pack(sector, sectors)


def tables_for(sectors: int, grain: int, gtes: int) -> int:
    """Grain tables of ``gtes`` entries that ``sectors`` need."""
    return -(-sectors // (grain * gtes))
