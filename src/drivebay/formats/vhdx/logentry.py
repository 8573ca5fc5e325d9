"""One entry of the log (MS-VHDX 2.3.1)."""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

from drivebay.blockmap import FileChange, FileExtent, FileWrite
from drivebay.crc32c import crc32c
from drivebay.formats.vhdx.header import MIB
from drivebay.formats.vhdx.regions import TABLE_OFFSETS

SECTOR = 4096
END_OF_FILES = 1 << 47  # a 64 TiB disk with all its tables ends far below

_ENTRY = struct.Struct("<4sIIIQII16sQQ")
_DESCRIPTOR = struct.Struct("<4s4s8sQQ")
_DATA_HEAD = struct.Struct("<4sI")
_FIRST_CHANGEABLE = TABLE_OFFSETS[0]  # the log changes neither the identifier nor the headers


class LogEntry(NamedTuple):
    """A valid entry: it takes ``length`` bytes of the log, and its sequence begins at ``tail``.

    ``flushed`` is how long the file was for sure, ``last`` how long it must be.
    """

    length: int
    tail: int
    sequence: int
    flushed: int
    last: int
    changes: tuple[FileChange, ...]


class Ring(NamedTuple):
    """The log's bytes, a ring, and the GUID that its entries must have."""

    data: bytes
    guid: UUID

    def bytes_at(self, start: int, length: int) -> bytes:
        """``length`` bytes from ``start`` on, around the end."""
        return self.data[start : start + length] + self.data[: max(start + length - len(self.data), 0)]

    def sector(self, start: int) -> bytes:
        """The 4096 bytes at ``start``, a multiple of 4096."""
        start %= len(self.data)
        return self.data[start : start + SECTOR]


def read_entry(ring: Ring, start: int) -> LogEntry | None:
    """The entry at ``start``; ``None`` where there is no valid one.

    The checksum comes last: sound entries can't overlap, so all of them cost one pass over the log.
    """
    header = _ENTRY.unpack_from(ring.data, start)
    signature, checksum, length, tail, sequence, count, _, guid, flushed, last = header
    sectors = -(-(_ENTRY.size + count * _DESCRIPTOR.size) // SECTOR)
    sized = length % SECTOR == 0 and tail % SECTOR == 0 and sectors * SECTOR <= length <= len(ring.data)
    if signature != b"loge" or guid != ring.guid.bytes_le or not sized or not sequence:
        return None
    if flushed % MIB or last % MIB or last > END_OF_FILES or tail >= len(ring.data):
        return None
    changes = _read_changes(ring, start, count, sectors, length, sequence)
    if changes is None or not _has_checksum(ring.bytes_at(start, length), checksum):
        return None
    return LogEntry(length, tail, sequence, flushed, last, changes)


def _has_checksum(entry: bytes, checksum: int) -> bool:
    return crc32c(entry[:4] + bytes(4) + entry[8:]) == checksum


def _read_changes(
    ring: Ring, start: int, count: int, sectors: int, length: int, sequence: int
) -> tuple[FileChange, ...] | None:
    table = ring.bytes_at(start, sectors * SECTOR)
    data_at = start + sectors * SECTOR
    changes = []
    for number in range(count):
        where = _ENTRY.size + number * _DESCRIPTOR.size
        kind, trailing, leading, offset, own = _DESCRIPTOR.unpack_from(table, where)
        change: FileChange | None = None
        if kind == b"desc":
            change = _data(ring.sector(data_at), trailing, leading, offset, sequence)
            data_at += SECTOR
        elif kind == b"zero":
            change = _zeros(offset, int.from_bytes(leading, "little"))
        if change is None or own != sequence or data_at > start + length:
            return None
        changes.append(change)
    return tuple(changes) if data_at == start + length else None


def _data(sector: bytes, trailing: bytes, leading: bytes, offset: int, sequence: int) -> FileWrite | None:
    low = int.from_bytes(sector[-4:], "little")
    if _DATA_HEAD.unpack_from(sector) != (b"data", sequence >> 32) or low != sequence & 0xFFFFFFFF:
        return None
    if not _is_place(offset, SECTOR):
        return None
    return FileWrite(offset, leading + sector[8:-4] + trailing)


def _zeros(offset: int, length: int) -> FileExtent | None:
    return FileExtent(offset, length) if _is_place(offset, length) else None


def _is_place(offset: int, length: int) -> bool:
    aligned = offset % SECTOR == 0 and length % SECTOR == 0
    return aligned and offset >= _FIRST_CHANGEABLE and offset + length <= END_OF_FILES
