"""Changing a QED header: the backing file's name and format, which is all that it holds of that kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from drivebay.blockmap import FileEdit, Files, FileWrite, HeaderEdit, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.edits import require_only
from drivebay.formats.qed.create import encode_name
from drivebay.formats.qed.header import BACKING_FILE, HEADER_SIZE, NO_PROBE, Header, read_header

_POSSIBLE = ("parent_path", "parent_format")


def edit(files: Files, _layer: Layer, change: HeaderEdit) -> Iterator[FileEdit]:
    """The changes that make the edit; an empty parent path makes the image a base.

    The new name goes beside the old one where there is room, and the header, one sector, comes last: a
    crash leaves the one or the other. Raises StorageError: UNSUPPORTED for fields that QED doesn't have,
    INVALID for a name that can't be.
    """
    header = read_header(files)
    require_only(files, change, _POSSIBLE, "a QED image", "only its parent's path and format can be set")
    features = header.features
    if change.parent_format is not None:
        features = features & ~NO_PROBE | (NO_PROBE if change.parent_format == "raw" else 0)
    if change.parent_path is None:
        yield from _rewritten(files, header, features)
    elif not change.parent_path:
        base = dataclasses.replace(header, name_offset=0, name_size=0)
        yield from _rewritten(files, base, features & ~(BACKING_FILE | NO_PROBE))
    else:
        name = encode_name(change.parent_path, "edit")
        offset = _place(header, len(name))
        yield FileWrite(offset, name)
        named = dataclasses.replace(header, name_offset=offset, name_size=len(name))
        yield from _rewritten(files, named, features | BACKING_FILE)


def _rewritten(files: Files, header: Header, features: int) -> Iterator[FileEdit]:
    if features & NO_PROBE and not features & BACKING_FILE:
        message = "a base has no parent whose format could be recorded; name the parent too"
        raise StorageError(ErrorKind.INVALID, message, path=files.path, operation="edit")
    yield FileWrite(0, dataclasses.replace(header, features=features).pack())


def _place(header: Header, length: int) -> int:
    """Where the new name goes; over the old one only where there is no other room."""
    end = header.name_offset + header.name_size
    if not header.has_backing or HEADER_SIZE + length <= header.name_offset:
        return HEADER_SIZE
    return end if end + length <= header.data_offset else HEADER_SIZE
