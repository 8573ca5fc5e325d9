"""The VHDX_LOG journal: changed sectors go to the image's log before they go to their places (MS-VHDX 2.3).

The log holds one entry for each half. An entry is a sequence of its own: when it is written, all
that older ones say is durable in its place, so it takes the half of the last entry but one. A crash
leaves the last entry whole, or a new one; either makes the tables whole when it is replayed.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from drivebay.blockmap import LogPlace
from drivebay.crc32c import crc32c
from drivebay.engine.change import Change
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID

SECTOR = 4096
_MIB = 1 << 20
_SOURCE = 0
_HEADER = struct.Struct("<4sIQ32s16s")
_ENTRY = struct.Struct("<4sIIIQII16sQQ")
_DESCRIPTOR = struct.Struct("<4s4s8sQQ")
_LAST_SEQUENCE = (1 << 64) - 1


class LogFiles(Protocol):
    """What the journal needs of `MetadataFiles`."""

    def path(self, source: int) -> str:
        """The path of a source, for messages."""

    def size(self, source: int) -> int:
        """How long a source is, in bytes."""

    def read(self, source: int, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``. Raises StorageError."""

    def write(self, change: Change) -> None:
        """Write a change; it is durable after `sync`. Raises StorageError."""

    def sync(self) -> None:
        """Everything written so far, data too, is durable when this returns. Raises StorageError."""


class VhdxLog:
    """Publishes changes of source 0 through the log at ``place``; one thread at a time.

    The log must be empty, or have been replayed, when `arm` is called.
    """

    marks = True

    def __init__(self, files: LogFiles, place: LogPlace) -> None:
        self._files = files
        self._place = place
        self._guid = uuid.uuid4()
        self._sequence = 0
        self._armed = False
        self._stable = 0  # bytes that the file has for sure
        self._unapplied = False

    def arm(self) -> None:
        """Give the image new FileWrite and DataWrite GUIDs, and open the log with an entry without changes.

        The entry is there before the header says so: a header that names a log without entries would
        make the image unreadable (MS-VHDX 2.3.3).
        """
        self._require_empty()
        self._align_size()
        self._sync()
        self._write_entry([])
        self._update_headers(self._guid, uuid.uuid4().bytes_le + self._data_guid())
        self._armed = True

    def _data_guid(self) -> bytes:
        if not self._place.same_data:
            return uuid.uuid4().bytes_le
        _, _, header = self._headers()
        file_and_data: bytes = _HEADER.unpack_from(header)[3]
        return file_and_data[16:]

    def publish(self, stages: Sequence[Sequence[Change]]) -> None:
        """As `Journal.publish`; the stages share an entry where they fit, so that they come as one."""
        for sectors in self._groups(change for stage in stages for change in stage):
            self._write_entry(sectors)
            self._unapplied = True
            for offset, data in sectors:
                self._files.write(Change(_SOURCE, offset, data))
            self._sync()
            self._unapplied = False

    def close(self) -> None:
        """Say in the headers that the log is empty, unless it holds what is not in its place yet."""
        if self._armed and not self._unapplied:
            self._update_headers(NULL_UUID)
            self._guid, self._sequence, self._armed = uuid.uuid4(), 0, False

    def _groups(self, changes: Iterable[Change]) -> Iterator[list[tuple[int, bytes]]]:
        """The changed sectors as they will be, by offset, in groups that fit into an entry each."""
        most = _capacity(self._place.length // 2)
        group: dict[int, bytearray] = {}
        for offset, data in (piece for change in changes for piece in _in_sectors(change)):
            start = offset - offset % SECTOR
            if start not in group and len(group) == most:
                yield _sorted(group)
                group = {}
            if start not in group:
                group[start] = bytearray(self._files.read(_SOURCE, start, SECTOR))
            group[start][offset - start : offset - start + len(data)] = data
        if group:
            yield _sorted(group)

    def _write_entry(self, sectors: Sequence[tuple[int, bytes]]) -> None:
        """Put an entry into the half whose turn it is, durably."""
        half = self._place.length // 2 // SECTOR * SECTOR
        tail = half * (self._sequence & 1)
        last = self._files.size(_SOURCE)
        last += -last % _MIB
        entry = _entry(self._guid, self._sequence + 1, tail, (self._stable, last), sectors)
        self._files.write(Change(_SOURCE, self._place.offset + tail, entry))
        self._sync()
        self._sequence += 1

    def _sync(self) -> None:
        size = self._files.size(_SOURCE)
        self._files.sync()
        self._stable = size - size % _MIB

    def _require_empty(self) -> None:
        """Refuse a log with entries, which would be lost; our own are there if arming failed before."""
        offset, _, header = self._headers()
        found = uuid.UUID(bytes_le=_HEADER.unpack_from(header)[4])
        if found not in (NULL_UUID, self._guid):
            raise self._corrupt(offset, f"the log {{{found}}} in it has not been replayed")

    def _align_size(self) -> None:
        """Let the file end at a multiple of 1 MiB, for the log counts in these."""
        size = self._files.size(_SOURCE)
        if size % _MIB:
            self._files.write(Change(_SOURCE, size + -size % _MIB - 1, b"\0"))

    def _update_headers(self, log_guid: uuid.UUID, writes: bytes = b"") -> None:
        """Replace the header that doesn't count, then the other one: a sound one is always left.

        ``writes`` are the new FileWrite and DataWrite GUIDs, if they are to change.
        """
        for _ in range(2):
            offset, other, header = self._headers()
            _, _, sequence, file_and_data, _ = _HEADER.unpack_from(header)
            if sequence == _LAST_SEQUENCE:
                raise self._corrupt(offset, "its header can't count any further")
            fields = _HEADER.pack(b"head", 0, sequence + 1, writes or file_and_data, log_guid.bytes_le)
            data = _with_checksum(fields + header[_HEADER.size :])
            self._files.write(Change(_SOURCE, other, data))
            self._sync()

    def _headers(self) -> tuple[int, int, bytes]:
        """Where the header that counts lies, and where the other one does; the first one's bytes."""
        found = []
        for offset in self._place.headers:
            data = self._files.read(_SOURCE, offset, SECTOR)
            if data[:4] == b"head" and _with_checksum(data[:4] + bytes(4) + data[8:]) == data:
                found.append((int.from_bytes(data[8:16], "little"), offset, data))
        if not found:
            raise self._corrupt(self._place.headers[0], "both of its headers are damaged")
        _, current, data = max(found)
        other = next(offset for offset in self._place.headers if offset != current)
        return current, other, data

    def _corrupt(self, offset: int, what: str) -> StorageError:
        return StorageError(
            ErrorKind.CORRUPT,
            f"{what}, so it can't be opened for writing; run 'drivebay check' on it, and open it read-only",
            path=self._files.path(_SOURCE),
            offset=offset,
            operation="write",
        )


def _capacity(length: int) -> int:
    """How many changed sectors fit into an entry of ``length`` bytes, a multiple of 4096."""
    return (length - _ENTRY.size) // (SECTOR + _DESCRIPTOR.size)


def _sorted(group: dict[int, bytearray]) -> list[tuple[int, bytes]]:
    return [(offset, bytes(group[offset])) for offset in sorted(group)]


def _in_sectors(change: Change) -> Iterator[tuple[int, bytes]]:
    """The change in pieces that lie within one sector each."""
    data, offset = change.data, change.offset
    while data:
        room = SECTOR - offset % SECTOR
        yield offset, data[:room]
        data, offset = data[room:], offset + room


def _entry(
    guid: uuid.UUID, sequence: int, tail: int, sizes: tuple[int, int], sectors: Sequence[tuple[int, bytes]]
) -> bytes:
    """A log entry, its own tail, that puts ``sectors`` in their places (MS-VHDX 2.3.1).

    ``sizes``: how long the file is for sure, and how long it must be.
    """
    table = _ENTRY.size + len(sectors) * _DESCRIPTOR.size
    table += -table % SECTOR
    length = table + len(sectors) * SECTOR
    header = _ENTRY.pack(b"loge", 0, length, tail, sequence, len(sectors), 0, guid.bytes_le, *sizes)
    descriptors = b"".join(
        _DESCRIPTOR.pack(b"desc", data[-4:], data[:8], offset, sequence) for offset, data in sectors
    )
    high, low = divmod(sequence, 1 << 32)
    marks = struct.pack("<4sI", b"data", high), low.to_bytes(4, "little")
    stored = (marks[0] + data[8:-4] + marks[1] for _, data in sectors)
    return _with_checksum((header + descriptors).ljust(table, b"\0") + b"".join(stored))


def _with_checksum(data: bytes) -> bytes:
    """``data`` with its CRC-32C in bytes 4 to 7, which must be zero."""
    return data[:4] + crc32c(data).to_bytes(4, "little") + data[8:]
