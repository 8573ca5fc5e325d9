"""The file type identifier and the two headers (MS-VHDX 2.2.1, 2.2.2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from drivebay.blockmap import Files, Match
from drivebay.crc32c import crc32c
from drivebay.formats.vhdx.refusal import require, require_known
from drivebay.model import NULL_UUID

MIB = 1 << 20
SIGNATURE = b"vhdxfile"
CREATOR_SIZE = 512
HEADER_OFFSETS = (64 << 10, 128 << 10)
HEADER_SIZE = 4096
VERSION = 1
LAST_SEQUENCE = (1 << 64) - 1

_SIGNATURE = b"head"
_LAYOUT = struct.Struct("<4sIQ16s16s16sHHIQ")


@dataclass(frozen=True, slots=True)
class Header:
    """A header's fields; offsets and lengths in bytes. ``log_guid`` is null where the log is empty."""

    sequence: int
    file_write: UUID
    data_write: UUID
    log_guid: UUID
    log_version: int
    version: int
    log_length: int
    log_offset: int

    @property
    def dirty(self) -> bool:
        """Whether the log has to be replayed."""
        return self.log_guid != NULL_UUID

    def pack(self) -> bytes:
        """The header's 4096 bytes, with their checksum."""
        fields = _LAYOUT.pack(
            _SIGNATURE,
            0,
            self.sequence,
            *(guid.bytes_le for guid in (self.file_write, self.data_write, self.log_guid)),
            self.log_version,
            self.version,
            self.log_length,
            self.log_offset,
        )
        return with_checksum(fields.ljust(HEADER_SIZE, b"\0"))


def with_checksum(data: bytes) -> bytes:
    """``data`` with its CRC-32C in bytes 4 to 7, which must be zero."""
    return data[:4] + crc32c(data).to_bytes(4, "little") + data[8:]


def has_checksum(data: bytes, signature: bytes) -> bool:
    """Whether ``data`` begins with its signature and a right checksum."""
    stored = int.from_bytes(data[4:8], "little")
    return data[:4] == signature and crc32c(data[:4] + bytes(4) + data[8:]) == stored


def unpack(data: bytes) -> Header | None:
    """The header in 4096 bytes; ``None`` where signature or checksum is wrong."""
    if len(data) < HEADER_SIZE or not has_checksum(data, _SIGNATURE):
        return None
    values = _LAYOUT.unpack_from(data)
    file_write, data_write, log_guid = (UUID(bytes_le=raw) for raw in values[3:6])
    return Header(values[2], file_write, data_write, log_guid, *values[6:])


class Headers(NamedTuple):
    """The two headers, ``None`` for a damaged one, and which of them counts."""

    copies: tuple[Header | None, Header | None]
    active: int

    @property
    def current(self) -> Header:
        """The header that counts."""
        header = self.copies[self.active]
        assert header is not None
        return header

    @property
    def active_offset(self) -> int:
        """Where the header that counts lies."""
        return HEADER_OFFSETS[self.active]

    @property
    def other_offset(self) -> int:
        """Where the next header goes."""
        return HEADER_OFFSETS[1 - self.active]


def probe(head: bytes, _tail: bytes = b"") -> Match:
    """YES by the file type identifier alone."""
    return Match.YES if head[: len(SIGNATURE)] == SIGNATURE else Match.NO


def read_headers(files: Files) -> Headers:
    """Both headers, the current one checked (rules X1 to X4). Raises StorageError."""
    require(
        files.read(0, len(SIGNATURE)) == SIGNATURE,
        files,
        0,
        f"the file doesn't begin with the VHDX signature {SIGNATURE!r}",
    )
    headers = _choose(files)
    _check(files, headers.current, headers.active_offset)
    return headers


def read_creator(files: Files) -> str:
    """Who says to have made the file."""
    raw = files.read(len(SIGNATURE), CREATOR_SIZE)
    return raw[: len(raw) & ~1].decode("utf-16-le", "replace").split("\0", 1)[0]


def _choose(files: Files) -> Headers:
    first, second = (unpack(files.read(offset, HEADER_SIZE)) for offset in HEADER_OFFSETS)
    found = first or second
    require(
        found is not None,
        files,
        HEADER_OFFSETS[0],
        "neither VHDX header has the right signature and CRC-32C",
    )
    if first is None or second is None:
        return Headers((first, second), 0 if first else 1)
    require(
        first == second or first.sequence != second.sequence,
        files,
        HEADER_OFFSETS[0] + 8,
        f"both VHDX headers have the sequence number {first.sequence}, but they differ",
    )
    return Headers((first, second), 1 if second.sequence > first.sequence else 0)


def _check(files: Files, header: Header, at: int) -> None:
    require_known(
        header.version == VERSION,
        files,
        at + 66,
        f"VHDX header: the version is {header.version}, but drivebay knows only {VERSION}",
    )
    require_known(
        header.log_version == 0 or not header.dirty,
        files,
        at + 64,
        f"VHDX header: the log version is {header.log_version}, but drivebay knows only 0",
    )
    require(
        header.log_length % MIB == 0 and (header.log_length > 0 or not header.dirty),
        files,
        at + 68,
        f"VHDX header: the log length is {header.log_length}, but it must be a multiple of {MIB}, not 0",
    )
    end = header.log_offset + header.log_length
    require(
        header.log_length == 0 or (header.log_offset % MIB == 0 and header.log_offset >= MIB),
        files,
        at + 72,
        f"VHDX header: the log offset is {header.log_offset}, but it must be a multiple of {MIB}, not 0",
    )
    require(
        header.log_length == 0 or end <= files.size,
        files,
        at + 72,
        f"VHDX header: the log at {header.log_offset} ends at {end}, but the file at {files.size}",
    )
