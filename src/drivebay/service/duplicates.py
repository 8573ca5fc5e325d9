"""Ways out where a UUID has two files, or a place another image (pains P1 to P3): relink, adopt, replace."""

from __future__ import annotations

import dataclasses
import os
from uuid import UUID, uuid4

from drivebay.blockmap import HeaderEdit
from drivebay.chain.edit import edit_header
from drivebay.chain.file_set import file_set
from drivebay.chain.resolve import open_image
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.store import machine_names, refresh
from drivebay.registry import rules
from drivebay.registry.database import Change, Registry
from drivebay.registry.journal import Relink
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service.media import find_medium
from drivebay.service.media_state import own_uuid, require_free
from drivebay.service.registering import duplicate, file_identity, register


def relocate_medium(registry: Registry, name: str, path: str, *, gone: bool = False) -> Medium:
    """The medium's file is at ``path`` now. Nothing is copied; the file must be the same image.

    With ``gone`` (relinking) it must not be at the old place any more. Raises StorageError (E22, E26, E54).
    """
    place = os.path.realpath(path)
    with registry.change() as change:
        medium = find_medium(change.tree, name)
        if place == medium.path:
            raise _refused(ErrorKind.INVALID, "this is where the registry has it already", place)
        require_free(medium, "relocate")
        if gone and _is_still_there(medium, place):
            raise duplicate(medium, place)
        return _put_at(change, medium, place)


def _is_still_there(medium: Medium, place: str) -> bool:
    """Whether the medium's own file lies at its old place, beside the one at ``place``."""
    if not os.path.lexists(medium.path) or file_identity(medium.path) == file_identity(place):
        return False
    try:
        found = own_uuid(file_set(medium.path, medium.format).facts, medium.path)
    except StorageError:
        return False  # whatever that is, it is not the medium
    return found in (None, medium.uuid)


def _put_at(change: Change, medium: Medium, place: str) -> Medium:
    """Take ``place`` down as the medium's, and tell its children, as far as nobody uses them."""
    _require_unregistered(change.tree, medium, place)
    facts = file_set(place, medium.format).facts
    found = own_uuid(facts, place)
    if found not in (None, medium.uuid):
        raise _refused(
            ErrorKind.STATE,
            f"this file is {{{found}}}, not {{{medium.uuid}}}: another image; register it with "
            "drivebay medium add",
            place,
        )
    if facts.size != medium.size or facts.differencing != (medium.parent is not None):
        raise _refused(
            ErrorKind.STATE,
            "this file has another size, or another kind of parent, than the medium; drivebay medium add "
            "registers it as what it is",
            place,
        )
    moved = dataclasses.replace(medium, path=place, variant=facts.variant)
    change.put_medium(moved)
    refresh(change, [moved.uuid])
    for child in change.tree.children(moved.uuid):
        if _is_free(child):
            change.after_commit(Relink(child.path, place))
    return moved


def _is_free(medium: Medium) -> bool:
    try:
        require_free(medium, "relink")
    except StorageError:
        return False
    return os.path.exists(medium.path)


def _require_unregistered(tree: MediaTree, medium: Medium, place: str) -> None:
    for other in tree.media.values():
        if other.uuid != medium.uuid and other.path == place:
            raise _refused(
                ErrorKind.STATE,
                f"this is the place of the medium {{{other.uuid}}}; close that one first, or relocate it",
                place,
            )


def adopt_image(registry: Registry, path: str) -> Medium:
    """Register a copy: the file gets a new UUID. A file at a known medium's place gets that one's UUID.

    Raises StorageError: UNSUPPORTED for a format without UUIDs, IN_USE.
    """
    place = os.path.realpath(path)
    with registry.view() as view:
        known = next((one for one in view.tree.media.values() if one.path == place), None)
    facts = file_set(place, known.format if known else None).facts
    if own_uuid(facts, place) is None:
        raise _refused(
            ErrorKind.UNSUPPORTED,
            f"a {facts.format} image holds no UUID that could be in the way; register it with "
            "drivebay medium add",
            place,
        )
    _write_uuid(place, facts.format, known.uuid if known else uuid4())
    return known or register(registry, place)[0]


def _write_uuid(place: str, format_name: str, uuid: UUID) -> None:
    with open_image(place, format_name, writable=True) as image:
        edit_header(image, HeaderEdit(uuid=uuid))


def replace_medium(registry: Registry, path: str) -> Medium:
    """The file at ``path`` takes the place of the medium that stands in its way, whose file stays on disk.

    Where both have the same UUID, the machines and children of the medium are now those of this file.
    Where another image has the medium's place, the medium is closed, which must be possible (E29).
    Raises StorageError.
    """
    place = os.path.realpath(path)
    found = own_uuid(file_set(place).facts, place)
    with registry.change() as change:
        same = change.tree.media.get(found) if found else None
        if same is not None and same.path != place:
            require_free(same, "replace")
            return _put_at(change, same, place)
        known = next((one for one in change.tree.media.values() if one.path == place), None)
        if known is None or known is same:
            raise _refused(
                ErrorKind.STATE, "nothing stands in its way; drivebay medium add registers it", place
            )
        rules.require_closable(change.tree, known, machine_names(change), "replace")
        change.remove_medium(known.uuid)
    return register(registry, place)[0]


def _refused(kind: ErrorKind, message: str, path: str) -> StorageError:
    return StorageError(kind, message, path=path, operation="relocate a medium")
