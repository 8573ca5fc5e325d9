"""The format extension: a block of optional features, mostly dirty bitmaps of backup programs.

Source: QEMU's "Parallels Expandable Image File Format", "Format Extension". Nothing in it says what the
disk holds; it only limits who may write, and what must go when somebody writes.
"""

from __future__ import annotations

import enum
import struct

from drivebay.blockmap import Files
from drivebay.formats.parallels.header import CLOSED, IN_USE, Header
from drivebay.model import SECTOR

MAGIC = 0xAB234CEF23DCEA87
DIRTY_BITMAP = 0x20385FAE252CB34A
_NECESSARY = 0x1
_TRANSIT = 0x2
_PREFIX = 24  # magic and checksum
_FEATURE = struct.Struct("<QQII")
_MOST_FEATURES = 256


class Extension(enum.Enum):
    """What a writer must do about the extension."""

    NONE = "none"
    KEEP = "keep"  # nothing in it can become wrong
    DROP = "drop"  # what it holds would be wrong after the first write
    FORBIDS = "forbids"  # it must not be lost, and can't be kept right


def read_extension(files: Files, header: Header) -> Extension:
    """Judge the extension. A program too old to know of it leaves it invalid: that is dropped."""
    if not header.extension:
        return Extension.NONE
    if header.in_use not in (CLOSED, IN_USE):
        return Extension.DROP
    start = header.extension * SECTOR
    if int.from_bytes(files.read(start, 8), "little") != MAGIC:
        return Extension.DROP
    return _judge(_features(files, start + _PREFIX, start + header.block))


def _judge(features: list[tuple[int, int]] | None) -> Extension:
    if features is None or any(flags & _NECESSARY for _, flags in features):
        return Extension.FORBIDS
    kept = [bool(flags & _TRANSIT) and magic != DIRTY_BITMAP for magic, flags in features]
    if all(kept):
        return Extension.KEEP
    return Extension.FORBIDS if any(kept) else Extension.DROP


def _features(files: Files, position: int, end: int) -> list[tuple[int, int]] | None:
    """Magic and flags of each feature; ``None`` where the list doesn't end as it should."""
    found: list[tuple[int, int]] = []
    while position + _FEATURE.size <= end and len(found) < _MOST_FEATURES:
        stored = files.read(position, _FEATURE.size)
        if len(stored) < _FEATURE.size:
            return None
        magic, flags, size, _ = _FEATURE.unpack(stored)
        if not magic:
            return found
        found.append((magic, flags))
        position += _FEATURE.size + size + -size % 8
    return None
