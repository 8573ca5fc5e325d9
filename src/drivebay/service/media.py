"""Media: the registry's images, looked up, made, closed and described."""

from __future__ import annotations

import dataclasses
import os
from typing import Any
from uuid import UUID, uuid4

from drivebay.blockmap import HeaderEdit
from drivebay.chain.edit import edit_header
from drivebay.chain.resolve import open_image
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.store import machine_names, refresh
from drivebay.machines.write_modes import require_may_be_parent
from drivebay.model import NULL_UUID
from drivebay.registry import rules
from drivebay.registry.database import Change, Registry
from drivebay.registry.medium import DeviceType, MediaTree, Medium, MediumType
from drivebay.service import images
from drivebay.service.media_state import own_uuid, require_free
from drivebay.service.registering import new_path, register, require_device


def find_medium(tree: MediaTree, name: str | UUID) -> Medium:
    """The medium that ``name`` means: its UUID, its path, or its file's name if only one has that.

    Raises StorageError: NOT_FOUND; INVALID for a name that several have.
    """
    text = str(name)
    if (uuid := _uuid(text)) is not None and uuid in tree.media:
        return tree.media[uuid]
    real = os.path.realpath(text)
    named = [one for one in tree.media.values() if one.path == real]
    named = named or [one for one in tree.media.values() if os.path.basename(one.path) == text]
    if len(named) == 1:
        return named[0]
    if named:
        paths = ", ".join(one.path for one in named[:5])
        message = f"{text[:200]!r} could be any of: {paths}; give the path or the UUID"
        raise StorageError(ErrorKind.INVALID, message, operation="look up a medium")
    raise StorageError(
        ErrorKind.NOT_FOUND,
        f"no medium {text[:200]!r} is registered; drivebay medium list shows those that are, "
        "drivebay medium add registers an image",
        operation="look up a medium",
    )


def find_or_register(registry: Registry, name: str | UUID, device: DeviceType | None = None) -> Medium:
    """As `find_medium`; an image file that isn't registered becomes so, with its parents."""
    with registry.view() as view:
        try:
            return find_medium(view.tree, name)
        except StorageError as error:
            if error.kind is not ErrorKind.NOT_FOUND or not os.path.exists(str(name)):
                raise
    return register(registry, str(name), device=device)[0]


def create_medium(
    registry: Registry,
    path: str,
    *,
    device: DeviceType = DeviceType.DISK,
    type: MediumType | None = None,
    parent: str | None = None,
    auto_reset: bool = False,
    comment: str = "",
    uuid: UUID | str | None = None,
    **image: Any,
) -> Medium:
    """Make an image and register it; ``image`` as in `drivebay.service.images.create_image`.

    Either both happen or nothing. ``parent`` is a medium, or an image that becomes one. Raises StorageError.
    """
    place = new_path(path)
    below = find_or_register(registry, parent) if parent is not None else None
    if below is not None:
        image |= {"parent": below.path, "parent_format": below.format}
    with registry.view() as view:
        _require_creatable(view.tree, below, uuid)
    with registry.intend([place]) as intent:
        made = images.create_image(place, comment=comment, uuid=uuid, **image)
        own = own_uuid(made.facts, place) or (UUID(str(uuid)) if uuid else uuid4())
        medium = Medium(
            own,
            place,
            made.facts.format,
            device,
            rules.default_type(device),
            below.uuid if below else None,
            made.facts.size,
            made.facts.variant,
            auto_reset,
            description=comment,
        )
        require_device(place, medium.format, device)
        with registry.change() as change:
            _require_creatable(change.tree, below, own)
            change.put_medium(medium)
            medium = _typed(change, medium, type)
            if auto_reset:
                rules.require_diff(medium)
            change.finish(intent)
    return medium


def _typed(change: Change, medium: Medium, type: MediumType | None) -> Medium:
    if type is None or type is medium.type:
        return medium
    rules.require_type(change.tree, medium, type, {})
    typed = dataclasses.replace(medium, type=type)
    change.put_medium(typed)
    return typed


def _require_creatable(tree: MediaTree, parent: Medium | None, uuid: UUID | str | None) -> None:
    known = _uuid(str(uuid)) if uuid else None
    if known is not None and known in tree.media:
        raise StorageError(
            ErrorKind.INVALID,
            f"{{{known}}} is registered already, as {tree.media[known].path}; leave --uuid out for a new one",
            operation="create",
        )
    if parent is not None:
        require_may_be_parent(tree, parent.uuid)


def close_medium(registry: Registry, name: str) -> Medium:
    """Take a medium off the registry; its file stays. Raises StorageError (IN_USE, E29)."""
    with registry.change() as change:
        medium = find_medium(change.tree, name)
        rules.require_closable(change.tree, medium, machine_names(change))
        change.remove_medium(medium.uuid)
    return medium


def set_type(registry: Registry, name: str, wanted: MediumType) -> Medium:
    """Give a base another write mode (4.4). Raises StorageError (E31 to E33)."""
    with registry.change() as change:
        medium = find_medium(change.tree, name)
        if medium.type is wanted:
            return medium
        rules.require_type(change.tree, medium, wanted, machine_names(change))
        require_free(medium, "set the type of")
        return _put(change, medium, type=wanted)


def set_auto_reset(registry: Registry, name: str, wanted: bool) -> Medium:
    """Whether a diff forgets what it holds at power-on. Raises StorageError (UNSUPPORTED, E39)."""
    with registry.change() as change:
        medium = find_medium(change.tree, name)
        rules.require_diff(medium)
        return _put(change, medium, auto_reset=wanted)


def describe_medium(registry: Registry, name: str, text: str) -> Medium:
    """Change a medium's description; the image holds it, too, if its format has a place that is large enough.

    Raises StorageError (IN_USE, E31).
    """
    with registry.change() as change:
        medium = find_medium(change.tree, name)
        require_free(medium, "describe")
        _write_comment(medium, text)
        return _put(change, medium, description=text)


def _write_comment(medium: Medium, text: str) -> None:
    try:
        with open_image(medium.path, medium.format, writable=True) as image:
            edit_header(image, HeaderEdit(comment=text))
    except StorageError as error:
        if error.kind not in (ErrorKind.UNSUPPORTED, ErrorKind.INVALID, ErrorKind.READ_ONLY):
            raise


def _put(change: Change, medium: Medium, **fields: Any) -> Medium:
    changed = dataclasses.replace(medium, **fields)
    change.put_medium(changed)
    refresh(change, [changed.uuid])
    return changed


def _uuid(text: str) -> UUID | None:
    try:
        uuid = UUID(text.strip("{}"))
    except ValueError:
        return None
    return None if uuid == NULL_UUID else uuid
