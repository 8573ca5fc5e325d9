"""What a header can be asked to record, in words, and the refusal of what an image has no place for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from drivebay.blockmap import Files, HeaderEdit
from drivebay.errors import ErrorKind, StorageError

_LABELS = {
    "uuid": "UUID",
    "modification_uuid": "modification UUID",
    "parent_uuid": "parent's UUID",
    "parent_modification_uuid": "parent's modification UUID",
    "parent_path": "parent's path",
    "parent_format": "parent's format",
    "parent_content_id": "parent's content id",
    "comment": "comment",
    "pchs": "physical geometry",
    "lchs": "logical geometry",
}


def require_only(
    files: Files, wanted: HeaderEdit, possible: Collection[str], image: str, remedy: str = "leave it out"
) -> None:
    """Raises UNSUPPORTED where a field that isn't ``possible`` is to change; ``image`` says what it is of."""
    for field in fields(wanted):
        if field.name not in possible and getattr(wanted, field.name) is not None:
            message = f"{image} has no place for its {_LABELS[field.name]}; {remedy}"
            raise StorageError(ErrorKind.UNSUPPORTED, message, path=files.path, operation="edit")
