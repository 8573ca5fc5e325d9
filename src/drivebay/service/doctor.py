"""Where the registry and what lies on disk disagree, with a remedy for each (pains P1 to P4, P17)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from shlex import quote
from uuid import UUID

from sqlalchemy import delete, select

from drivebay.chain.file_set import files_of
from drivebay.chain.staging import is_held, staging_folders, undo_staging
from drivebay.machines.document import document_path
from drivebay.machines.efi_variables import all_variables
from drivebay.machines.model import Machine
from drivebay.machines.store import load_all, save
from drivebay.model import Severity
from drivebay.registry import schema
from drivebay.registry.database import Change, Registry, View
from drivebay.registry.document import media_text
from drivebay.registry.journal import INTENT, WriteFile
from drivebay.registry.medium import MediaTree, Medium
from drivebay.registry.trash import forget_discarded, list_trash
from drivebay.service.media_state import MediumState, condition_of
from drivebay.service.registering import file_identity
from drivebay.service.scan import Found, scan_images, walk_files
from drivebay.service.sizes import format_size

_ABANDONED = 3600  # seconds without a change, after which a folder that nobody holds is one that nobody needs


class Repair(Enum):
    """What ``--fix`` does about a finding, where it can do harm to nothing."""

    MEDIA_FILE = "write media.json anew"
    MACHINE_FILE = "write the machine file anew"
    STAGING = "remove the unfinished image"
    JOURNAL = "forget what can't be done any more"
    TRASH = "forget the entry of the trash"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A disagreement at ``path``; ``remedy`` is a command or what else to do. Notes are no findings."""

    code: str
    message: str
    path: str
    remedy: str
    severity: Severity = Severity.WARNING
    repair: Repair | None = None


def examine(registry: Registry) -> list[Trouble]:
    """All disagreements; nothing is changed."""
    with registry.view() as view:
        machines = load_all(view)
        images = scan_images(known_folders(view.tree, machines), recursive=False)
        return [
            *_media(view.tree, images),
            *_twins(view.tree, images),
            *_uses(view.tree, machines),
            *_machine_files(view, machines),
            *_media_file(view, registry),
            *_leftovers(view.tree, machines),
            *_staging(view.tree, machines),
            *_journal(view),
            *_trash(view),
        ]


def known_folders(tree: MediaTree, machines: Iterable[Machine]) -> list[str]:
    """Where media and machines lie."""
    folders = {os.path.dirname(medium.path) for medium in tree.media.values()}
    for machine in machines:
        folders |= {machine.folder, machine.snapshot_folder}
    return sorted(folder for folder in folders if os.path.isdir(folder))


def _media(tree: MediaTree, images: list[Found]) -> Iterator[Trouble]:
    registered = {one.path for one in tree.media.values()}
    for medium in tree.media.values():
        condition = condition_of(tree, medium)
        if condition.state is not MediumState.INACCESSIBLE:
            continue
        elsewhere = [one for one in images if one.uuid == medium.uuid and one.path not in registered]
        if elsewhere:
            yield Trouble(
                "moved",
                f"the file of {medium.uuid} is at {elsewhere[0].path} now",
                medium.path,
                f"drivebay medium relink {medium.uuid} {quote(elsewhere[0].path)}",
            )
        elif not os.path.lexists(medium.path):
            yield Trouble(
                "missing",
                f"the file of {medium.uuid} is gone",
                medium.path,
                f"restore it, or: drivebay medium relink {medium.uuid} PATH, or: drivebay medium close "
                f"{medium.uuid}",
                Severity.ERROR,
            )
        else:
            yield _inaccessible(tree, medium, condition.reason)


def _inaccessible(tree: MediaTree, medium: Medium, reason: str) -> Trouble:
    code, remedy = "changed", f"drivebay medium replace {quote(medium.path)}"
    if medium.parent is not None and medium.parent not in tree.media:
        code, remedy = "parent-missing", "drivebay medium add PARENT"
    elif "another image" not in reason:
        code, remedy = "unreadable", f"drivebay check {quote(medium.path)}"
    return Trouble(code, reason, medium.path, remedy, Severity.ERROR)


def _twins(tree: MediaTree, images: list[Found]) -> Iterator[Trouble]:
    """Files that hold a medium's UUID beside its own, and files that are registered twice."""
    for image in images:
        medium = tree.media.get(image.uuid) if image.uuid else None
        if medium is None or medium.path == image.path:
            continue
        if condition_of(tree, medium).state is MediumState.INACCESSIBLE:  # then this is where it moved to
            continue
        if file_identity(medium.path) != file_identity(image.path):
            yield Trouble(
                "duplicate",
                f"it has the UUID {image.uuid} of {medium.path}",
                image.path,
                f"drivebay medium adopt {quote(image.path)} (a new UUID), or remove the file",
            )
    seen: dict[tuple[int, int], Medium] = {}
    for medium in tree.media.values():
        identity = file_identity(medium.path)
        if identity is not None and (other := seen.setdefault(identity, medium)) is not medium:
            yield Trouble(
                "twice",
                f"this is the same file as {other.path}, and both are registered",
                medium.path,
                f"drivebay medium close {medium.uuid}",
                Severity.ERROR,
            )


def _uses(tree: MediaTree, machines: Iterable[Machine]) -> Iterator[Trouble]:
    names = {machine.uuid: machine for machine in machines}
    unknown: dict[UUID, set[UUID]] = {}
    for use in tree.uses:
        if use.medium not in tree.media:
            unknown.setdefault(use.machine, set()).add(use.medium)
    for uuid, media in unknown.items():
        machine = names.get(uuid)
        listed = ", ".join(sorted(map(str, media)))
        yield Trouble(
            "medium-unknown",
            f"machine {machine.name if machine else uuid} uses media that are not registered: {listed}",
            machine.folder if machine else "",
            "drivebay medium add IMAGE, or detach them",
            Severity.ERROR,
        )


def _machine_files(view: View, machines: Iterable[Machine]) -> Iterator[Trouble]:
    rows = view.connection.execute(select(schema.machines.c.uuid, schema.machines.c.document)).all()
    texts = {row.uuid: row.document for row in rows}
    for machine in machines:
        path = document_path(machine)
        if not os.path.isdir(machine.folder):
            yield Trouble(
                "machine-missing",
                f"the folder of machine {machine.name!r} is gone",
                machine.folder,
                f"restore it, or: drivebay machine delete {machine.name}",
                Severity.ERROR,
            )
        elif _text(path) != texts[str(machine.uuid)]:
            yield Trouble(
                "machine-file",
                f"the file of machine {machine.name!r} is not what the registry knows",
                path,
                "drivebay doctor --fix",
                repair=Repair.MACHINE_FILE,
            )


def _media_file(view: View, registry: Registry) -> Iterator[Trouble]:
    path = registry.home.media_file
    if _text(path) != media_text(view.tree.media.values()) and (view.tree.media or os.path.exists(path)):
        message = "the copy of what the registry knows of media is not up to date"
        yield Trouble("media-file", message, path, "drivebay doctor --fix", repair=Repair.MEDIA_FILE)


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except OSError:
        return None


def _leftovers(tree: MediaTree, machines: Iterable[Machine]) -> Iterator[Trouble]:
    known = {file for medium in tree.media.values() for file in (medium.path, *files_of(medium.path))}
    for machine in machines:
        states = [machine.state_file, *(snapshot.state_file for snapshot in machine.snapshots)]
        known |= {os.path.realpath(os.path.join(machine.folder, state)) for state in states if state}
        known |= {os.path.realpath(os.path.join(machine.snapshot_folder, state)) for state in states if state}
        known |= {*map(os.path.realpath, all_variables(machine))}
    for machine in machines:
        for path in walk_files([machine.snapshot_folder]):
            if path not in known:
                size = format_size(os.lstat(path).st_blocks * 512)
                yield Trouble(
                    "leftover",
                    f"nobody knows this file ({size}) in the snapshot folder of machine {machine.name!r}",
                    path,
                    f"drivebay medium add {quote(path)}, if it is an image that is wanted; else remove it",
                )


def _staging(tree: MediaTree, machines: Iterable[Machine]) -> Iterator[Trouble]:
    for folder in known_folders(tree, machines):
        for aside in staging_folders(folder):
            if time.time() - os.lstat(aside).st_mtime >= _ABANDONED and not is_held(aside):
                message = "an image that was never finished"
                remedy = "drivebay doctor --fix"
                yield Trouble("unfinished", message, aside, remedy, repair=Repair.STAGING)


def _journal(view: View) -> Iterator[Trouble]:
    table = schema.journal
    for row in view.connection.execute(select(table).where(table.c.kind != INTENT)):
        message = f"this could not be done yet: {row.kind}; each change of the registry tries it again"
        remedy = "make the file accessible; or drivebay doctor --fix, which forgets it"
        yield Trouble("left-to-do", message, row.path, remedy, repair=Repair.JOURNAL)


def _trash(view: View) -> Iterator[Trouble]:
    total = 0
    for entry in list_trash(view.connection):
        there = [now for _, now in entry.moves if os.path.lexists(now)]
        if len(there) < len(entry.moves) or not entry.moves:
            message = f"of what was deleted as {entry.label}, files are gone from the trash"
            yield Trouble("trash", message, entry.id, "drivebay doctor --fix", repair=Repair.TRASH)
        total += sum(os.lstat(path).st_blocks * 512 for path in there)
    if total:
        message = f"the trash takes {format_size(total)}"
        yield Trouble("trash-size", message, "", "drivebay medium empty-trash", Severity.NOTE)


def fix(registry: Registry, troubles: Iterable[Trouble]) -> list[Trouble]:
    """Do what can do no harm; the answer is what was done."""
    wanted = [trouble for trouble in troubles if trouble.repair is not None]
    kinds = {trouble.repair for trouble in wanted}
    for trouble in wanted:
        if trouble.repair is Repair.STAGING:
            undo_staging(trouble.path)
    with registry.change() as change:
        _fix_rows(change, {trouble.path for trouble in wanted}, kinds)
        if Repair.MACHINE_FILE in kinds:
            for machine in load_all(change):
                if document_path(machine) in {trouble.path for trouble in wanted}:
                    save(change, machine)
        if Repair.MEDIA_FILE in kinds:
            text = media_text(change.tree.media.values())
            change.after_commit(WriteFile(registry.home.media_file, text))
    return wanted


def _fix_rows(change: Change, paths: set[str], kinds: set[Repair | None]) -> None:
    table = schema.journal
    if Repair.JOURNAL in kinds:
        change.connection.execute(delete(table).where((table.c.kind != INTENT) & table.c.path.in_(paths)))
    if Repair.TRASH in kinds:
        for entry in list_trash(change.connection):
            if entry.id in paths:
                forget_discarded(change.connection, entry)
