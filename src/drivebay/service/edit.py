"""Changing images in place: header fields, and repairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from drivebay.blockmap import HeaderEdit, RepairStep
from drivebay.chain import open_image
from drivebay.chain.candidate import identity_uuid
from drivebay.chain.edit import apply_step, edit_header, repair_steps
from drivebay.chain.image import OpenedImage
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID, SECTOR, Geometry, ImageFacts
from drivebay.service.images import ImageInfo, image_info
from drivebay.service.options import DEFAULT, OpenOptions, Path


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair would do, or, if it was ``applied``, has done: nothing for a sound image."""

    steps: Sequence[RepairStep]
    applied: bool

    @property
    def loses(self) -> bool:
        """Whether data that can be read now can't be read afterwards."""
        return any(step.loses for step in self.steps)


def repair_image(
    path: Path,
    options: OpenOptions = DEFAULT,
    *,
    apply: bool = False,
    allow_loss: bool = False,
    done: Callable[[RepairStep], None] | None = None,
) -> Repair:
    """Find out what would repair the image, and do it if ``apply``; ``done`` is told of each step.

    Nothing is done where a step loses data, unless ``allow_loss``. The file is whole between two steps,
    so that a repair may be interrupted, and begun again. Raises StorageError.
    """
    with _opened(path, options, writable=apply) as image:
        found = Repair(repair_steps(image), apply)
        if apply and found.loses and not allow_loss:
            raise _would_lose(image, found)
        for step in found.steps if apply else ():
            apply_step(image, step)
            if done is not None:
                done(step)
    return found


def edit_image(path: Path, fields: Mapping[str, str], options: OpenOptions = DEFAULT) -> ImageInfo:
    """Change header fields (`FIELDS`), given as text, and tell what the image says now.

    Raises StorageError: INVALID for unknown fields and values, UNSUPPORTED for what the format lacks.
    """
    edit: dict[str, Any] = {}
    with _opened(path, options, writable=True) as image:
        for name, value in fields.items():
            if name not in FIELDS:
                raise _invalid(f"there is no field {name[:60]!r}; name one of: {', '.join(FIELDS)}")
            edit |= FIELDS[name](image, value)
        _require_another_parent(image, edit)
        edit_header(image, HeaderEdit(**edit))
    return image_info(path, options)


def _require_another_parent(image: OpenedImage, edit: dict[str, Any]) -> None:
    facts = image.layer.facts
    uuid, parent = edit.get("uuid", facts.uuid), edit.get("parent_uuid")
    if parent is not None and parent != NULL_UUID and parent == uuid:
        raise StorageError(
            ErrorKind.INVALID,
            f"{parent} is the UUID of this image, which can't be its own parent; name another one",
            path=image.files.path,
            operation="edit",
        )


def _opened(path: Path, options: OpenOptions, *, writable: bool) -> OpenedImage:
    return open_image(
        os.fspath(path), options.format, search=options.search, part=options.part, writable=writable
    )


def _would_lose(image: OpenedImage, found: Repair) -> StorageError:
    lost = "; ".join(step.message for step in found.steps if step.loses)
    return StorageError(
        ErrorKind.STATE,
        f"nothing was done, because this would lose data: {lost}. Copy the image first; "
        "then allow it with --allow-loss",
        path=image.files.path,
        operation="repair",
    )


def _uuid(field: str) -> Callable[[OpenedImage, str], dict[str, object]]:
    def read(_image: OpenedImage, text: str) -> dict[str, object]:
        if text in _UUIDS:
            return {field: _UUIDS[text]()}
        try:
            return {field: UUID(text)}
        except ValueError:
            raise _invalid(f"{text[:60]!r} is no UUID; write it like {uuid4()}, or random, or none") from None

    return read


_UUIDS: dict[str, Callable[[], UUID]] = {"random": uuid4, "none": lambda: NULL_UUID}


def _geometry(field: str) -> Callable[[OpenedImage, str], dict[str, object]]:
    def read(image: OpenedImage, text: str) -> dict[str, object]:
        numbers = [0, 0, 0] if text == "none" else text.replace("/", ",").split(",")
        try:
            cylinders, heads, sectors = map(int, numbers)
        except ValueError:
            raise _invalid(
                f"{text[:60]!r} is no geometry; write it like 1024,16,63 (cylinders, heads, sectors), or none"
            ) from None
        most = image.layer.facts.size // SECTOR
        if field == "pchs" and cylinders * heads * sectors > most:  # readers would not believe it
            raise _invalid(f"a geometry of {text} is larger than the disk; name at most {most} sectors")
        return {field: Geometry(cylinders, heads, sectors)}

    return read


def _text(field: str) -> Callable[[OpenedImage, str], dict[str, object]]:
    return lambda _image, text: {field: text}


def _parent(image: OpenedImage, path: str) -> dict[str, object]:
    """All that this image records of a parent, taken from the image at ``path``."""
    child = image.layer.facts
    if not child.differencing:
        raise StorageError(
            ErrorKind.STATE,
            "this image has no parent, and gets none by a change of its header: the data would change; "
            "create a child with --parent instead",
            path=image.files.path,
            operation="edit",
        )
    real = os.path.realpath(path)
    with open_image(real, child.parent_format) as parent:
        return _link(
            child, parent, os.path.relpath(real, os.path.dirname(os.path.realpath(image.files.path)))
        )


def _link(child: ImageFacts, parent: OpenedImage, name: str) -> dict[str, object]:
    facts = parent.layer.facts
    nothing = child.parent_uuid == NULL_UUID and not child.parent_names
    by_uuid = nothing or child.parent_uuid != NULL_UUID
    by_modification = nothing or child.parent_modification_uuid != NULL_UUID
    return {
        "parent_uuid": identity_uuid(facts, parent.files.path) if by_uuid else None,
        "parent_modification_uuid": facts.modification_uuid if by_modification else None,
        "parent_path": name if child.parent_names else None,
        "parent_content_id": facts.content_id if child.parent_content_id is not None else None,
    }


#: The fields that can be set, and how each is read.
FIELDS: dict[str, Callable[[OpenedImage, str], dict[str, object]]] = {
    "uuid": _uuid("uuid"),
    "modification": _uuid("modification_uuid"),
    "parent": _parent,
    "parent-uuid": _uuid("parent_uuid"),
    "parent-modification": _uuid("parent_modification_uuid"),
    "parent-path": _text("parent_path"),
    "parent-format": _text("parent_format"),
    "comment": _text("comment"),
    "geometry": _geometry("pchs"),
    "bios-geometry": _geometry("lchs"),
}


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="edit")
