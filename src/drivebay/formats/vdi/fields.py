"""Header fields made of what people ask for."""

from __future__ import annotations

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.header import Chs
from drivebay.model import SECTOR, Geometry

COMMENT_SIZE = 256
MOST_PCHS = Geometry(16383, 16, 63)
MOST_LCHS = Geometry(1024, 255, 63)


def comment_field(text: str) -> bytes:
    """The comment as stored, without the padding. Raises StorageError (INVALID)."""
    comment = text.encode("utf-8", "replace")
    if len(comment) >= COMMENT_SIZE or b"\0" in comment:
        raise _invalid(
            f"a VDI comment has at most {COMMENT_SIZE - 1} bytes of UTF-8 and no NUL; this one has "
            f"{len(comment)} bytes: shorten it"
        )
    return comment


def chs_field(wanted: Geometry, most: Geometry) -> Chs:
    """A geometry as stored; all zero stands for "not decided", as in VirtualBox's own images.

    Raises StorageError (INVALID).
    """
    values = (wanted.cylinders, wanted.heads, wanted.sectors)
    limits = (most.cylinders, most.heads, most.sectors)
    if any(not 0 <= value <= limit for value, limit in zip(values, limits, strict=True)):
        raise _invalid(f"a geometry of {values} is not possible; the limits are {limits}")
    return Chs(*values, SECTOR)


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="write a header")
