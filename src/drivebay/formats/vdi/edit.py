"""Changing fields of a VDI header: one write within one sector, so that a crash leaves the old or the new."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from uuid import UUID

from drivebay.blockmap import FileEdit, Files, FileWrite, HeaderEdit, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.edits import require_only
from drivebay.formats.vdi.fields import COMMENT_SIZE, MOST_LCHS, MOST_PCHS, chs_field, comment_field
from drivebay.formats.vdi.header import (
    HEADER_SIZE,
    MODIFICATION_OFFSET,
    PARENT_MODIFICATION_OFFSET,
    PARENT_OFFSET,
    UUID_OFFSET,
    Header,
)
from drivebay.formats.vdi.layer import is_differencing
from drivebay.formats.vdi.rules import read_header
from drivebay.formats.vdi.version0 import REFUSAL
from drivebay.model import NULL_UUID, SECTOR, Geometry

_COMMENT_OFFSET = 84
_PCHS_OFFSET = 348
_LCHS_OFFSET = 456
_CHS = struct.Struct("<4I")
_UUIDS = {
    "uuid": UUID_OFFSET,
    "modification_uuid": MODIFICATION_OFFSET,
    "parent_uuid": PARENT_OFFSET,
    "parent_modification_uuid": PARENT_MODIFICATION_OFFSET,
}
_KNOWN = {*_UUIDS, "comment", "pchs", "lchs"}


def edit(files: Files, _layer: Layer, wanted: HeaderEdit) -> Iterator[FileEdit]:
    """The change that makes the edit.

    Raises StorageError at once: UNSUPPORTED for fields that this VDI doesn't have, INVALID for values
    that can't be.
    """
    header = read_header(files)
    given = {field.name: getattr(wanted, field.name) for field in dataclasses.fields(wanted)}
    given = {name: value for name, value in given.items() if value is not None}
    _require_fields(header, set(given))
    require_only(files, wanted, _KNOWN, "a VDI", "it knows its parent by UUID")
    _require_links(header, wanted)
    sector = bytearray(files.read(0, SECTOR))
    for name, value in given.items():
        offset, data = _stored(name, value)
        sector[offset : offset + len(data)] = data
    return iter((FileWrite(0, bytes(sector)),))


def _stored(name: str, value: object) -> tuple[int, bytes]:
    match name, value:
        case "comment", str(text):
            return _COMMENT_OFFSET, comment_field(text).ljust(COMMENT_SIZE, b"\0")
        case "pchs", Geometry() as chs:
            return _PCHS_OFFSET, _CHS.pack(*chs_field(chs, MOST_PCHS))
        case "lchs", Geometry() as chs:
            return _LCHS_OFFSET, _CHS.pack(*chs_field(chs, MOST_LCHS))
        case uuid, UUID() as identifier:
            return _UUIDS[uuid], identifier.bytes_le
    raise AssertionError(name)


def _require_fields(header: Header, given: set[str]) -> None:
    if header.major == 0:
        raise _error(ErrorKind.UNSUPPORTED, REFUSAL)
    if "lchs" in given and header.header_size < HEADER_SIZE:
        raise _error(
            ErrorKind.UNSUPPORTED,
            f"a VDI header of {header.header_size} bytes has no place for a logical geometry; leave it out",
        )


def _require_links(header: Header, wanted: HeaderEdit) -> None:
    if wanted.uuid == NULL_UUID:
        raise _error(ErrorKind.INVALID, "a VDI can't have the null UUID; give it another one")
    parent = wanted.parent_uuid
    if parent == NULL_UUID and is_differencing(header):
        message = "without its parent's UUID this image would lose what it doesn't hold; give another one"
        raise _error(ErrorKind.INVALID, message)
    if parent not in (None, NULL_UUID) and not is_differencing(header):
        raise _error(ErrorKind.INVALID, "this image is a base, which has no parent; leave its UUID out")
    if parent is not None and parent in (wanted.uuid, header.uuid if wanted.uuid is None else None):
        raise _error(ErrorKind.INVALID, "an image can't be its own parent; give another UUID")


def _error(kind: ErrorKind, message: str) -> StorageError:
    return StorageError(kind, message, operation="edit")
