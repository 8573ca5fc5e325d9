"""The VHD footer, which ends every image and begins the sparse ones: its fields and its checksum."""

from __future__ import annotations

import dataclasses
import enum
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from drivebay.blockmap import Match
from drivebay.model import Geometry

COOKIE = b"conectix"
FOOTER_SIZE = 512
OLD_FOOTER_SIZE = 511  # Virtual PC before 2004
VERSION = 0x00010000
NO_DATA_OFFSET = 0xFFFFFFFFFFFFFFFF  # of fixed disks
RESERVED_FEATURE = 2  # always set
TEMPORARY_FEATURE = 1
WINDOWS = b"Wi2k"
CREATOR = b"dbay"

TYPE_OFFSET = 60
CHECKSUM_OFFSET = 64
_LAYOUT = struct.Struct(">8s II Q I 4s I 4s QQ HBB I I 16s B 427s")
_UUID = -3  # its place among the fields
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class DiskType(enum.IntEnum):
    """The disk type field; 0, 1, 5 and 6 are none, or reserved."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


@dataclass(frozen=True, slots=True)
class Footer:
    """The fields as stored, nothing of them checked. Sizes are bytes, ``created`` seconds since 2000."""

    cookie: bytes
    features: int
    version: int
    data_offset: int
    created: int
    creator: bytes
    creator_version: int
    creator_os: bytes
    original_size: int
    current_size: int
    cylinders: int
    heads: int
    sectors: int
    type: int
    checksum: int
    uuid: UUID
    saved_state: int
    reserved: bytes

    @property
    def geometry(self) -> Geometry:
        """The stored geometry."""
        return Geometry(self.cylinders, self.heads, self.sectors)

    @property
    def is_sparse(self) -> bool:
        """Whether it belongs to an image that also has a dynamic header."""
        return self.type in (DiskType.DYNAMIC, DiskType.DIFFERENCING)

    def pack(self) -> bytes:
        """The footer's bytes, with a checksum that fits."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        values[_UUID] = self.uuid.bytes_le
        return sealed(_LAYOUT.pack(*values), CHECKSUM_OFFSET)


def unpack(data: bytes) -> Footer:
    """The footer in 512 bytes, unchecked; an old one's missing byte counts as zero."""
    values = list(_LAYOUT.unpack(data.ljust(FOOTER_SIZE, b"\0")))
    values[_UUID] = UUID(bytes_le=values[_UUID])
    return Footer(*values)


def checksum(data: bytes, offset: int) -> int:
    """The one's complement of the sum of all bytes but the four of the checksum itself, at ``offset``."""
    return ~(sum(data) - sum(data[offset : offset + 4])) & 0xFFFFFFFF


def sealed(data: bytes, offset: int) -> bytes:
    """``data`` with its checksum at ``offset``."""
    return data[:offset] + checksum(data, offset).to_bytes(4, "big") + data[offset + 4 :]


def is_sealed(data: bytes, offset: int) -> bool:
    """Whether the checksum at ``offset`` fits."""
    return int.from_bytes(data[offset : offset + 4], "big") == checksum(data, offset)


def timestamp(when: datetime) -> int:
    """Seconds since the beginning of 2000, as the format counts them."""
    return int((when - _EPOCH).total_seconds()) & 0xFFFFFFFF


def file_time(modified: int | None) -> int:
    """As `timestamp`, of seconds since 1970; 0 ("not recorded") for what the format can't say."""
    seconds = 0 if modified is None else modified - int(_EPOCH.timestamp())
    return seconds if 0 < seconds < 1 << 32 else 0


def seconds_of(stamp: int) -> int | None:
    """The seconds since 1970 that a time stamp tells, ``None`` where none is recorded."""
    return stamp + int(_EPOCH.timestamp()) if stamp else None


def moment(seconds: int) -> str:
    """A time stamp for humans; empty where none is recorded."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else ""


def probe(head: bytes, tail: bytes) -> Match:
    """YES by a cookie at the end or in front: a damaged image is still VHD, and opening it tells more."""
    ends = (tail[-FOOTER_SIZE:], tail[-OLD_FOOTER_SIZE:], head)
    return Match.YES if any(part.startswith(COOKIE) for part in ends) else Match.NO
