"""Changes to a descriptor: UUIDs, the parent, the comment, the geometry."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from drivebay.blockmap import FileEdit, Files, HeaderEdit, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.edits import require_only
from drivebay.formats.vmdk.descriptor import escape
from drivebay.formats.vmdk.facts import NO_CONTENT
from drivebay.formats.vmdk.layer import read_descriptor
from drivebay.formats.vmdk.text import changed, geometry_settings
from drivebay.model import NULL_UUID, Geometry

_UUIDS = {
    "uuid": "ddb.uuid.image",
    "modification_uuid": "ddb.uuid.modification",
    "parent_uuid": "ddb.uuid.parent",
    "parent_modification_uuid": "ddb.uuid.parentmodification",
}
_POSSIBLE = {*_UUIDS, "parent_path", "parent_content_id", "comment", "pchs", "lchs"}
MOST_PHYSICAL = Geometry(16383, 16, 63)
MOST_LOGICAL = Geometry(1024, 255, 63)


def edit(files: Files, _layer: Layer, wanted: HeaderEdit) -> Iterator[FileEdit]:
    """The descriptor with new values; lines that it doesn't concern stay as they are, byte by byte.

    Raises StorageError at once: UNSUPPORTED for what a VMDK can't record, INVALID for impossible values.
    """
    require_only(files, wanted, _POSSIBLE, "a VMDK")
    settings: dict[str, str | None] = {}
    for field, key in _UUIDS.items():
        value: UUID | None = getattr(wanted, field)
        if value is not None:
            settings[key] = str(value)
    settings |= _parent(wanted)
    if wanted.comment is not None:
        settings["ddb.comment"] = escape(wanted.comment)
    settings |= _geometry(files, wanted.pchs, "", MOST_PHYSICAL)
    settings |= _geometry(files, wanted.lchs, "bios", MOST_LOGICAL)
    return iter(changed(read_descriptor(files), settings, files.path) if settings else ())


def _parent(wanted: HeaderEdit) -> dict[str, str | None]:
    settings: dict[str, str | None] = {}
    if wanted.parent_path is not None:
        settings["parentFileNameHint"] = wanted.parent_path or None
    content = wanted.parent_content_id
    if content is None and wanted.parent_uuid == NULL_UUID and not wanted.parent_path:
        content = NO_CONTENT  # no parent any more
    if content is not None:
        settings["parentCID"] = f"{content:08x}"
    return settings


def _geometry(files: Files, wanted: Geometry | None, prefix: str, most: Geometry) -> dict[str, str | None]:
    if wanted is None:
        return {}
    require_geometry(wanted, most, files.path, "edit")
    return dict(geometry_settings(wanted, prefix))


def require_geometry(wanted: Geometry, most: Geometry, path: str | None, operation: str) -> None:
    """Refuse (INVALID) a geometry beyond ``most``; all zero stands for "not decided"."""
    values = (wanted.cylinders, wanted.heads, wanted.sectors)
    limits = (most.cylinders, most.heads, most.sectors)
    if any(not 0 <= value <= limit for value, limit in zip(values, limits, strict=True)):
        message = f"a geometry of {values} is not possible; the limits are {limits}"
        raise StorageError(ErrorKind.INVALID, message, path=path, operation=operation)
