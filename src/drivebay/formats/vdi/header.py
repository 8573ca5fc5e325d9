"""The VDI header: where its fields lie, and what they are called."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from drivebay.blockmap import Match
from drivebay.model import Geometry

SIGNATURE = 0xBEDA107F
VERSION = 0x00010001
FREE = 0xFFFFFFFF  # ask the parent
ZERO = 0xFFFFFFFE  # zeros, whatever the parent has
ENTRY_SIZE: Literal[4] = 4
MIN_BLOCK = 512 << 10
MAX_BLOCK = 64 << 20
MIN_HEADER_SIZE = 384  # without LCHS: old VirtualBox, QEMU
HEADER_SIZE = 400  # with LCHS
PREFIX_SIZE = 72  # text, signature and version; the header size counts from here
COUNTER_OFFSET = 388
UUID_OFFSET = 392
MODIFICATION_OFFSET = 408
PARENT_OFFSET = 424
PARENT_MODIFICATION_OFFSET = 440
ZERO_EXPAND = 0x100  # new blocks are zero-filled before use; the only flag there is

_LAYOUT = struct.Struct("<64s II III 256s II 4I I Q 4I 16s16s16s16s 4I")


class ImageType(enum.IntEnum):
    """The image type field."""

    DYNAMIC = 1
    FIXED = 2
    UNDO = 3
    DIFFERENCING = 4


class Chs(NamedTuple):
    """A geometry as stored, with the sector size that goes with it; nothing of it is checked."""

    cylinders: int
    heads: int
    sectors: int
    sector_size: int


@dataclass(frozen=True, slots=True)
class Header:
    """The fields as stored. Offsets and sizes are bytes of the file, ``size`` is the virtual disk's."""

    text: bytes
    signature: int
    version: int
    header_size: int
    type: int
    flags: int
    comment: bytes
    map_offset: int
    data_offset: int
    pchs: Chs
    dummy: int
    size: int
    block_size: int
    extra: int
    blocks: int
    blocks_allocated: int
    uuid: UUID
    modification_uuid: UUID
    parent_uuid: UUID
    parent_modification_uuid: UUID
    lchs: Chs

    @property
    def major(self) -> int:
        """The version in front of the point: 1, or 0 in images of the first VirtualBox."""
        return self.version >> 16

    @property
    def counter_offset(self) -> int:
        """Where the number of allocated blocks lies in the file."""
        return COUNTER_OFFSET if self.major else 368

    @property
    def parent_offset(self) -> int:
        """Where the parent's UUID lies in the file."""
        return PARENT_OFFSET if self.major else 404

    @property
    def unit(self) -> int:
        """What one block takes in the file."""
        return self.extra + self.block_size

    @property
    def blocks_needed(self) -> int:
        """Blocks that the virtual size needs."""
        return -(-self.size // self.block_size)

    @property
    def map_end(self) -> int:
        """Where the block map ends."""
        return self.map_offset + ENTRY_SIZE * self.blocks

    def pack(self) -> bytes:
        """The header's bytes, from the first of the file."""
        identifiers = (self.uuid, self.modification_uuid, self.parent_uuid, self.parent_modification_uuid)
        return _LAYOUT.pack(
            self.text,
            self.signature,
            self.version,
            self.header_size,
            self.type,
            self.flags,
            self.comment,
            self.map_offset,
            self.data_offset,
            *self.pchs,
            self.dummy,
            self.size,
            self.block_size,
            self.extra,
            self.blocks,
            self.blocks_allocated,
            *(identifier.bytes_le for identifier in identifiers),
            *self.lchs,
        )


def probe(head: bytes, _tail: bytes = b"") -> Match:
    """YES by the signature alone: a damaged image is still VDI, and opening it tells what is wrong."""
    return Match.YES if head[64:68] == SIGNATURE.to_bytes(4, "little") else Match.NO


def unpack(data: bytes) -> Header:
    """The header in the first bytes of a file, unchecked; what ``data`` lacks counts as zeros."""
    values = _LAYOUT.unpack(data[: _LAYOUT.size].ljust(_LAYOUT.size, b"\0"))
    identifiers = (UUID(bytes_le=raw) for raw in values[19:23])
    fields = (*values[:9], Chs(*values[9:13]), *values[13:19], *identifiers, Chs(*values[23:]))
    return Header(*fields)


def geometry(stored: Chs) -> Geometry:
    """The three numbers without the sector size."""
    return Geometry(stored.cylinders, stored.heads, stored.sectors)
