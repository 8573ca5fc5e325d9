"""Moving media with all their files, and telling their children (specification 3.6, pain P20)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

from drivebay.chain.file_set import FileSet, file_set
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import format_named
from drivebay.machines.store import refresh
from drivebay.registry.database import Change, Registry
from drivebay.registry.journal import Effect, Relink, Remove, Rename, WriteFile
from drivebay.registry.medium import Medium
from drivebay.service.media import find_medium
from drivebay.service.media_state import require_free
from drivebay.service.own_files import require_own_files


@dataclass(frozen=True, slots=True)
class Move:
    """A medium's way: ``renames`` of its ``files``, and the descriptor's new text if that names them."""

    medium: Medium
    files: FileSet
    target: str
    renames: tuple[Rename, ...]
    descriptor: str | None = None

    def effects(self) -> Sequence[Effect]:
        """What is done to files. A descriptor that changes is written anew, the old one goes last."""
        if self.descriptor is None:
            return self.renames
        return [*self.renames, WriteFile(self.target, self.descriptor), Remove([self.medium.path])]


def move_medium(registry: Registry, name: str, target: str) -> Medium:
    """Move a medium: into a folder, to a new name in its folder, or to a path; the extension stays.

    Only within a file system, as nothing is copied. Its children are told. Raises StorageError: INVALID
    for a target that exists (E22) or is the same place (E54), IN_USE (E31), UNSUPPORTED.
    """
    with registry.change() as change:
        medium = find_medium(change.tree, name)
        require_free(medium, "move")
        move = plan_move(medium, target)
        require_own_files(change.tree.media.values(), medium, move.files, "move")
        _require_children_free(change, medium)
        moved = dataclasses.replace(medium, path=move.target)
        change.put_medium(moved)
        for effect in move.effects():
            change.after_commit(effect)
        for link in _links(change, moved):
            change.after_commit(link)
        refresh(change, [moved.uuid])
    return moved


def _links(change: Change, moved: Medium) -> list[Relink]:
    links = [Relink(child.path, moved.path) for child in change.tree.children(moved.uuid)]
    if moved.parent is not None and (parent := change.tree.media.get(moved.parent)) is not None:
        links.append(Relink(moved.path, parent.path))
    return links


def _require_children_free(change: Change, medium: Medium) -> None:
    for child in change.tree.children(medium.uuid):
        require_free(child, "relink")
        if format_named(child.format).edit is None:
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"its child {child.path} is a {child.format} image, which can't be told; leave it here",
                path=medium.path,
                operation="move",
            )


def plan_move(medium: Medium, target: str) -> Move:
    """How the medium's files get to ``target``; nothing is done. Raises StorageError."""
    files = file_set(medium.path, medium.format)
    place = _place(medium, target)
    if place == medium.path:
        raise _refused(ErrorKind.INVALID, "this is where it is already", place)
    if files.is_device:
        raise _refused(ErrorKind.UNSUPPORTED, "a block device can't be moved", medium.path)
    if files.is_bundle:
        renames = (Rename(medium.path, place),)
        move = Move(medium, files, place, renames)
    else:
        move = _with_further(medium, place, files)
    for rename in move.renames:
        _require_possible(rename)
    if os.path.lexists(place):
        raise _refused(ErrorKind.INVALID, "there is a file of this name, and none is ever overwritten", place)
    return move


def _place(medium: Medium, target: str) -> str:
    if os.sep not in target and not os.path.isdir(target):
        target = os.path.join(os.path.dirname(medium.path), target)  # a new name where it is
    elif os.path.isdir(target):
        target = os.path.join(target, os.path.basename(medium.path))
    folder, name = os.path.split(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise _refused(ErrorKind.NOT_FOUND, "there is no such folder; make it first", folder)
    extension = os.path.splitext(medium.path)[1]
    stem = os.path.splitext(name)[0] if os.path.splitext(name)[1] else name
    return os.path.join(os.path.realpath(folder), stem + extension)


def _with_further(medium: Medium, place: str, files: FileSet) -> Move:
    """Further files that are called after the image are renamed with it, where its descriptor allows that."""
    if any(os.path.isabs(name) for name in files.names):
        raise _refused(
            ErrorKind.UNSUPPORTED,
            f"it names a further file by its whole path ({files.further[0]}), which would be wrong then",
            medium.path,
        )
    stems = [os.path.splitext(os.path.basename(path))[0] for path in (medium.path, place)]
    text = _descriptor(medium) if files.names and stems[0] != stems[1] else None
    names = {name: name for name in files.names}
    if text is not None:
        names = {name: _renamed(name, *stems) for name in names}
        for old, new in names.items():
            text = text.replace(f'"{old}"', f'"{new}"')
    old_folder, new_folder = os.path.dirname(medium.path), os.path.dirname(place)
    pairs = [(os.path.join(old_folder, old), os.path.join(new_folder, new)) for old, new in names.items()]
    renames = [Rename(old, new) for old, new in pairs if old != new]
    if text is None:
        renames.append(Rename(medium.path, place))
    return Move(medium, files, place, tuple(renames), text)


def _descriptor(medium: Medium) -> str | None:
    """The text of a VMDK's own descriptor file; other images keep the names of their further files."""
    if medium.format != "vmdk":
        return None
    with open(medium.path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read(1 << 20)
    return text if text.lstrip().startswith("#") else None


def _renamed(name: str, old: str, new: str) -> str:
    return new + name[len(old) :] if name.startswith(old) else name


def _require_possible(rename: Rename) -> None:
    if os.path.lexists(rename.target):
        message = "there is a file of this name, and none is ever overwritten; move it away first"
        raise _refused(ErrorKind.INVALID, message, rename.target)
    folder = os.path.dirname(rename.target)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if os.lstat(rename.source).st_dev != os.stat(folder).st_dev:
        raise _refused(
            ErrorKind.UNSUPPORTED,
            "it lies on another file system, where moving would mean copying; copy the files with cp "
            "--sparse=always, then say drivebay medium relocate",
            rename.target,
        )


def _refused(kind: ErrorKind, message: str, path: str) -> StorageError:
    return StorageError(kind, message, path=path, operation="move")
