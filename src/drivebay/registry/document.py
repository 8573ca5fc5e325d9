"""Media as JSON: in home's media.json, and in machine files. Keys that a newer drivebay added are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.registry.medium import DeviceType, Medium, MediumType

VERSION = 1


def medium_to_document(medium: Medium, path: str | None = None) -> dict[str, Any]:
    """A medium as JSON has it; ``path`` is what to record in place of its own, like a relative one."""
    return {
        "uuid": str(medium.uuid),
        "path": medium.path if path is None else path,
        "format": medium.format,
        "device": medium.device.value,
        "type": medium.type.value,
        "parent": None if medium.parent is None else str(medium.parent),
        "size": medium.size,
        "variant": medium.variant,
        "auto_reset": medium.auto_reset,
        "merging": medium.merging,
        "description": medium.description,
    }


def medium_from_document(document: Mapping[str, Any]) -> Medium:
    """The medium in ``document``. Raises StorageError (CORRUPT) for what no medium can be."""
    try:
        parent = document.get("parent")
        return Medium(
            UUID(document["uuid"]),
            str(document["path"]),
            str(document["format"]),
            DeviceType(document.get("device", "disk")),
            MediumType(document.get("type", "normal")),
            UUID(parent) if parent else None,
            int(document.get("size", 0)),
            str(document.get("variant", "")),
            bool(document.get("auto_reset", False)),
            bool(document.get("merging", False)),
            str(document.get("description", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            ErrorKind.CORRUPT,
            f"the record of a medium is damaged ({type(error).__name__}: {error}); restore the file that "
            "holds it from a copy",
            operation="read the record of a medium",
        ) from error


def media_text(media: Iterable[Medium]) -> str:
    """The text of media.json."""
    ordered = sorted(media, key=lambda medium: medium.uuid)
    document = {"version": VERSION, "media": [medium_to_document(medium) for medium in ordered]}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_media_text(text: str, path: str) -> list[Medium]:
    """The media of a media.json. Raises StorageError (CORRUPT)."""
    try:
        return [medium_from_document(one) for one in json.loads(text)["media"]]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            ErrorKind.CORRUPT,
            f"this is no list of media ({type(error).__name__}); leave it out, or restore it from a copy",
            path=path,
            operation="read a list of media",
        ) from error
