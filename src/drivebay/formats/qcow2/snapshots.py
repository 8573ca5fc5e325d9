"""Internal snapshots: the table that lists them, each with an L1 table of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.qcow2.header import Header
from drivebay.formats.qcow2.rules import MAX_L1, refusal
from drivebay.model import Part

_FIXED = struct.Struct(">QIHHIIQII")
_MAX_EXTRA = 1024
_SIZE = struct.Struct(">8xQ")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table entry. ``size`` is the virtual disk's; ``offset`` and ``length`` are those of the entry."""

    l1_offset: int
    l1_size: int
    id: str
    name: str
    created: float
    size: int
    offset: int
    length: int

    def part(self) -> Part:
        """The snapshot as the image's facts list it."""
        return Part(self.id, self.name, self.size, self.created)


def read_snapshots(files: Files, header: Header) -> Iterator[Snapshot]:
    """The snapshots, oldest first. Raises CORRUPT where an entry can't be; its L1 table isn't looked at."""
    position = header.snapshots_offset
    for number in range(header.snapshots):
        snapshot = _read(files, header, position, number)
        yield snapshot
        position += snapshot.length


def _read(files: Files, header: Header, position: int, number: int) -> Snapshot:
    fixed = files.read(position, _FIXED.size)
    if len(fixed) < _FIXED.size:
        raise _cut(files, position, number)
    l1_offset, l1_size, id_length, name_length, seconds, nanoseconds, _, _, extra = _FIXED.unpack(fixed)
    if extra > _MAX_EXTRA:
        what = f"QCOW2 snapshot {number}: its extra data has {extra} bytes, but {_MAX_EXTRA} are the most"
        raise refusal(files, what, position + 36)
    length = extra + id_length + name_length
    rest = files.read(position + _FIXED.size, length)
    if len(rest) < length:
        raise _cut(files, position, number)
    size = _SIZE.unpack_from(rest)[0] if extra >= _SIZE.size else header.size
    texts = rest[extra:]
    return Snapshot(
        l1_offset=l1_offset,
        l1_size=l1_size,
        id=texts[:id_length].decode("utf-8", "replace"),
        name=texts[id_length:].decode("utf-8", "replace"),
        created=seconds + nanoseconds / 1e9,
        size=size,
        offset=position,
        length=_FIXED.size + length + -(_FIXED.size + length) % 8,
    )


def _cut(files: Files, position: int, number: int) -> StorageError:
    return refusal(files, f"QCOW2 snapshot {number}: its table entry reaches beyond the file's end", position)


def find_snapshot(files: Files, snapshots: tuple[Snapshot, ...], wanted: str) -> Snapshot:
    """The snapshot with the id ``wanted``, or else the name. Raises NOT_FOUND that lists them."""
    for key in ("id", "name"):
        for snapshot in snapshots:
            if getattr(snapshot, key) == wanted:
                return snapshot
    known = ", ".join(f"{snapshot.id} ({snapshot.name})" for snapshot in snapshots[:20]) or "none"
    message = f"the image has no snapshot {wanted!r}; name one of those it has: {known}"
    raise StorageError(ErrorKind.NOT_FOUND, message, path=files.path, operation="open")


def check_table(files: Files, header: Header, snapshot: Snapshot) -> None:
    """Raises CORRUPT where the snapshot's L1 table can't serve for its disk."""
    needed = -(-snapshot.size // (header.cluster * header.per_leaf))
    end = snapshot.l1_offset + snapshot.l1_size * 8
    sound = snapshot.l1_offset > 0 and snapshot.l1_offset % header.cluster == 0 and end <= files.size
    if sound and 0 < needed <= snapshot.l1_size <= MAX_L1 // 8:
        return
    what = (
        f"QCOW2 snapshot {snapshot.id!r}: its L1 table has {snapshot.l1_size} entries at offset "
        f"{snapshot.l1_offset}, which can't be for a disk of {snapshot.size} bytes"
    )
    raise refusal(files, what, snapshot.offset)
