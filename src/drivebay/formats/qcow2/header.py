"""The QCOW2 header: where its fields lie, and what they are called (QEMU, docs/interop/qcow2)."""

from __future__ import annotations

import enum
import struct
from dataclasses import astuple, dataclass, replace

from drivebay.blockmap import Match

MAGIC = 0x514649FB
V2_LENGTH = 72
V3_LENGTH = 104
NEW_LENGTH = 112  # with the compression type and its padding
MAX_BACKING_NAME = 1023
L1_PLACE = 36  # number of entries (32 bits), then the table's offset (64 bits)
REFCOUNT_PLACE = 48  # the table's offset (64 bits), then its clusters (32 bits)
INCOMPATIBLE_PLACE = 72
AUTOCLEAR_PLACE = 88
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00  # of entries of both levels
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

_V2 = struct.Struct(">II QI IQ I IQ QI IQ")
_V3 = struct.Struct(">QQQ II B")


class Incompatible(enum.IntFlag):
    """Features that a reader must know."""

    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


class Compatible(enum.IntFlag):
    """Features that nobody needs to know."""

    LAZY_REFCOUNTS = 1


class Autoclear(enum.IntFlag):
    """Features that a writer clears unless it keeps them true."""

    BITMAPS = 1
    RAW_DATA_FILE = 2


@dataclass(frozen=True, slots=True)
class Header:
    """The fields as stored, in their order; those that version 2 lacks have its fixed values."""

    magic: int = MAGIC
    version: int = 3
    backing_offset: int = 0
    backing_length: int = 0
    cluster_bits: int = 16
    size: int = 0
    crypt_method: int = 0
    l1_size: int = 0
    l1_offset: int = 0
    refcount_offset: int = 0
    refcount_clusters: int = 0
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    length: int = NEW_LENGTH
    compression: int = 0

    @property
    def cluster(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def extended(self) -> bool:
        """Whether L2 entries have a bitmap of subclusters beside them."""
        return bool(self.incompatible & Incompatible.EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        """Whether guest clusters lie in a second file."""
        return bool(self.incompatible & Incompatible.DATA_FILE)

    @property
    def refcount_bits(self) -> int:
        """The width of a reference count."""
        return 1 << self.refcount_order

    @property
    def step(self) -> int:
        """Bytes from one L2 entry to the next."""
        return 16 if self.extended else 8

    @property
    def per_leaf(self) -> int:
        """Entries of an L2 table."""
        return self.cluster // self.step

    @property
    def l1_needed(self) -> int:
        """L1 entries that the virtual size needs."""
        return -(-self.size // (self.cluster * self.per_leaf))

    def pack(self) -> bytes:
        """The header's bytes, from the first of the file, padded to ``length``."""
        values = astuple(self)
        packed = _V2.pack(*values[:13])
        if self.version > 2:
            packed += _V3.pack(*values[13:])
        return packed[: self.length].ljust(self.length, b"\0")


def probe(head: bytes, _tail: bytes = b"") -> Match:
    """YES by the magic number and a version other than QCOW's own 1: opening tells what is wrong."""
    magic = head[:4] == MAGIC.to_bytes(4, "big")
    return Match.YES if magic and head[4:8] != b"\0\0\0\1" else Match.NO


def unpack(data: bytes) -> Header:
    """The header in the first bytes of a file, unchecked; what ``data`` lacks counts as zeros."""
    data = data[:NEW_LENGTH].ljust(NEW_LENGTH, b"\0")
    values = _V2.unpack_from(data)
    if values[1] == 2:
        return replace(Header(*values), length=V2_LENGTH)
    header = Header(*values, *_V3.unpack_from(data, _V2.size))
    return header if header.length > V3_LENGTH else replace(header, compression=0)
