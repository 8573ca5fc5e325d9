"""Deleting media: into the trash, from where they come back, or for good."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from drivebay.chain.file_set import file_set, files_of
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.store import machine_names
from drivebay.machines.write_modes import require_may_be_parent
from drivebay.registry import rules
from drivebay.registry.database import Change, Registry, View
from drivebay.registry.document import medium_from_document, medium_to_document
from drivebay.registry.journal import Remove, Trash
from drivebay.registry.medium import MediaTree, Medium
from drivebay.registry.trash import Discarded, find_discarded, forget_discarded, list_trash
from drivebay.service.media import find_medium
from drivebay.service.media_state import require_free
from drivebay.service.own_files import require_own_files

_PARENT_WRITTEN = "parent_written"


@dataclass(frozen=True, slots=True)
class Deletion:
    """What deleting a medium comes to: its files, and the bytes that they take on the host."""

    medium: Medium
    files: tuple[str, ...]
    disk_usage: int


def plan_deletion(view: View, name: str) -> Deletion:
    """What deleting this medium would do. Raises StorageError: IN_USE (E29, E31), UNSUPPORTED (E30)."""
    medium = find_medium(view.tree, name)
    rules.require_closable(view.tree, medium, machine_names(view), "delete")
    require_free(medium, "delete")
    try:
        files = file_set(medium.path, medium.format)
    except StorageError:  # damaged, or gone already: what is there goes
        return Deletion(medium, (medium.path,) if os.path.lexists(medium.path) else (), 0)
    if files.is_device:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            "a block device can't be deleted; drivebay medium close takes it off the registry",
            path=medium.path,
            operation="delete",
        )
    require_own_files(view.tree.media.values(), medium, files, "delete")
    return Deletion(medium, tuple(files.removable), files.disk_usage)


def delete_medium(registry: Registry, name: str, *, now: bool = False) -> Deletion:
    """Delete a medium with all its files: for good if ``now``, else into the trash. Raises as the plan."""
    with registry.change() as change:
        plan = plan_deletion(change, name)
        carry_out(change, plan, now=now)
    return plan


def carry_out(change: Change, plan: Deletion, *, now: bool) -> None:
    """Delete what ``plan`` says with ``change``."""
    change.remove_medium(plan.medium.uuid)
    if now:
        change.after_commit(Remove(plan.files))
        return
    parent = plan.medium.parent and change.tree.media.get(plan.medium.parent)
    written = {_PARENT_WRITTEN: _written(parent)} if parent else {}
    record = json.dumps({**medium_to_document(plan.medium), **written})
    whole = [plan.medium.path] if os.path.isdir(plan.medium.path) else plan.files
    change.after_commit(Trash(whole, plan.medium.path, record))


def undelete_medium(registry: Registry, name: str, *, allow_stale_parent: bool = False) -> Medium:
    """Bring a medium back from the trash, to where it was.

    Raises StorageError: NOT_FOUND, INVALID where there is another file by now, STATE, also for a parent that
    was written meanwhile, unless ``allow_stale_parent``.
    """
    with registry.change() as change:
        entry = find_discarded(change.connection, name)
        medium = _medium_of(entry)
        for before, now in entry.moves:
            _require_restorable(before, now)
        if medium.parent is not None:
            _require_parent(change.tree, medium.parent, entry, allow_stale=allow_stale_parent)
        if medium.uuid in change.tree.media:
            raise _refused(
                ErrorKind.STATE, f"{{{medium.uuid}}} is registered again by now; close that first", entry
            )
        change.put_medium(medium)
        forget_discarded(change.connection, entry)
        for rename in entry.restoring:
            change.after_commit(rename)
        change.after_commit(Remove([entry.folder]))
    return medium


def _require_parent(tree: MediaTree, parent: UUID, entry: Discarded, *, allow_stale: bool) -> None:
    if parent not in tree.media:
        raise _refused(
            ErrorKind.STATE, f"its parent {{{parent}}} is not registered any more; add it first", entry
        )
    require_may_be_parent(tree, parent)
    before = json.loads(entry.record).get(_PARENT_WRITTEN)
    if not allow_stale and before is not None and before != _written(tree.get(parent)):
        raise _refused(
            ErrorKind.STATE,
            f"its parent {tree.get(parent).path} was written after this was deleted, so it may show other "
            "bytes now; if you know that it doesn't, say --allow-stale-parent",
            entry,
        )


def _written(medium: Medium) -> int | None:
    """When any of the medium's files was last written, in nanoseconds: not all formats record that."""
    try:
        return max(os.stat(file).st_mtime_ns for file in files_of(medium.path, medium.format))
    except OSError:
        return None


def _medium_of(entry: Discarded) -> Medium:
    if not entry.record:
        raise _refused(ErrorKind.STATE, f"this was no medium; its files are in {entry.folder}", entry)
    return medium_from_document(json.loads(entry.record))


def _require_restorable(before: str, now: str) -> None:
    if os.path.lexists(before):
        raise StorageError(
            ErrorKind.INVALID,
            "there is another file at its place by now; move that away first",
            path=before,
            operation="undelete",
        )
    if not os.path.lexists(now):
        raise StorageError(
            ErrorKind.NOT_FOUND,
            f"somebody removed it from the trash ({now}); restore it from a backup",
            path=before,
            operation="undelete",
        )


def _refused(kind: ErrorKind, message: str, entry: Discarded) -> StorageError:
    return StorageError(kind, message, path=entry.label, operation="undelete")


def discarded_media(view: View) -> list[Discarded]:
    """What is in the trash, the oldest first."""
    return list_trash(view.connection)


def empty_trash(registry: Registry, *, older_than: timedelta = timedelta(0)) -> list[Discarded]:
    """Remove for good what is in the trash for at least that long; the answer is what went."""
    limit = datetime.now(UTC) - older_than
    with registry.change() as change:
        gone = [entry for entry in list_trash(change.connection) if entry.deleted <= limit]
        for entry in gone:
            forget_discarded(change.connection, entry)
            change.after_commit(Remove(_files_below(entry)))
    return gone


def _files_below(entry: Discarded) -> list[str]:
    """All files of an entry, then its folders from the innermost out."""
    found: list[str] = []
    for folder, _, names in os.walk(entry.folder, topdown=False):
        found += [os.path.join(folder, name) for name in names]
        found.append(folder)
    return found
