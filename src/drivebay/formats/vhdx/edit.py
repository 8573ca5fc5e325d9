"""Changes of a VHDX image's identity and of its link to the parent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from uuid import uuid4

from drivebay.blockmap import FileEdit, Files, FileWrite, HeaderEdit, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.edits import require_only
from drivebay.formats.vhdx.create import locator_values
from drivebay.formats.vhdx.image import ImageParts, read_parts
from drivebay.formats.vhdx.locator import Locator, pack_locator
from drivebay.formats.vhdx.metadata import DISK_ID, PARENT_LOCATOR, TABLE_SIZE, pack_entry
from drivebay.model import NULL_UUID

_POSSIBLE = ("uuid", "modification_uuid", "parent_modification_uuid", "parent_path", "parent_content_id")


def edit(files: Files, _layer: Layer, wanted: HeaderEdit) -> Iterator[FileEdit]:
    """The changes, each whole on its own; the header's come first, as the specification wants it.

    Raises StorageError: UNSUPPORTED for what VHDX has no place for, STATE while its log has to be replayed.
    """
    require_only(files, wanted, _POSSIBLE, "a VHDX")
    parts = read_parts(files)
    if parts.replay:
        what = "its log has to be replayed first: run 'drivebay repair' on it, then try again"
        raise _error(files, ErrorKind.STATE, what)
    return iter(_changes(parts, wanted))


def _changes(parts: ImageParts, wanted: HeaderEdit) -> list[FileEdit]:
    changes: list[FileEdit] = []
    if wanted.uuid is not None:
        changes.append(_disk_id(parts, wanted))
    if wanted.parent_path is not None or wanted.parent_modification_uuid is not None:
        changes += _locator(parts, wanted)
    if wanted.modification_uuid is not None or changes:
        changes.insert(0, _header(parts, wanted))
    return changes


def _header(parts: ImageParts, wanted: HeaderEdit) -> FileEdit:
    current = parts.headers.current
    header = dataclasses.replace(
        current,
        sequence=current.sequence + 1,
        file_write=uuid4(),
        data_write=wanted.modification_uuid or current.data_write,
    )
    return FileWrite(parts.headers.other_offset, header.pack())


def _disk_id(parts: ImageParts, wanted: HeaderEdit) -> FileEdit:
    item = parts.metadata.item(DISK_ID)
    assert item is not None
    assert wanted.uuid is not None
    if wanted.uuid == NULL_UUID:
        raise _error(parts.files, ErrorKind.INVALID, "a VHDX disk can't have the null UUID as its id")
    return FileWrite(parts.metadata_region.offset + item.offset, wanted.uuid.bytes_le)


def _locator(parts: ImageParts, wanted: HeaderEdit) -> list[FileEdit]:
    """The new locator goes to free space, then the table's entry changes: a crash leaves one or the other."""
    old, item = parts.metadata.locator, parts.metadata.item(PARENT_LOCATOR)
    if old is None or item is None:
        raise _error(parts.files, ErrorKind.INVALID, "the image has no parent: a base can't be given one")
    data = pack_locator(_values(old, wanted))
    offset = _free_place(parts, len(data))
    region = parts.metadata_region.offset
    return [
        FileWrite(region + offset, data),
        FileWrite(item.place, pack_entry(PARENT_LOCATOR, offset, len(data))),
    ]


def _values(old: Locator, wanted: HeaderEdit) -> dict[str, str]:
    """A new path replaces all old ones; a new linkage leaves them, and other tools' keys stay as they are."""
    path = wanted.parent_path
    linkage = wanted.parent_modification_uuid
    new = locator_values("x" if path is None else path, old.linkage if linkage is None else linkage, "edit")
    if path is None:
        return {**old.values, **{key: text for key, text in new.items() if not key.endswith("_path")}}
    return {**{key: text for key, text in old.values.items() if not key.endswith("_path")}, **new}


def _free_place(parts: ImageParts, length: int) -> int:
    position = TABLE_SIZE
    for begin, end in sorted((item.offset, item.end) for item in parts.metadata.items if item.length):
        if position + length <= begin:
            break
        position = max(position, end + -end % 16)
    if position + length > parts.metadata_region.length:
        what = "the metadata region has no room for a new parent locator; make a new image instead"
        raise _error(parts.files, ErrorKind.NO_SPACE, what)
    return position


def _error(files: Files, kind: ErrorKind, what: str) -> StorageError:
    return StorageError(kind, what, path=files.path, operation="edit")
