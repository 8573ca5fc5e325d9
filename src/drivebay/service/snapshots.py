"""Snapshots of machines that are not running, and what all snapshots have in common.

The order is the same everywhere, so that a crash leaves the old or the new state and no stray file: the new
images are made under an intent; one change of the registry takes them up, with all else that changes; files
that nobody needs any more go after that is committed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.efi_variables import variables_of
from drivebay.machines.model import Machine, Snapshot
from drivebay.machines.mutability import RUNNING
from drivebay.machines.snapshot_names import UniqueName, unique_name
from drivebay.machines.snapshot_tree import by_uuid, find_snapshot
from drivebay.machines.snapshots import (
    DeletePlan,
    RestorePlan,
    TakePlan,
    edit_snapshot,
    plan_delete,
    plan_restore,
    plan_take,
)
from drivebay.machines.store import load, refresh, save
from drivebay.registry.database import Change, Registry, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.registry.medium import Medium
from drivebay.service import efi_variables
from drivebay.service.diffs import image_files, made_diffs, record_diffs
from drivebay.service.machines.live import load_live, require_same


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was taken.

    ``paused`` is for how many seconds the guest stood still, ``frozen`` for how many its file systems did.
    ``kind``: "offline", "saved", "online", "live" or "disks" (of a running machine, without its memory).
    """

    machine: str
    snapshot: Snapshot
    kind: str
    paused: float = 0.0
    memory: int = 0
    frozen: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back, and the media that are gone for it."""

    machine: Machine
    snapshot: Snapshot
    dropped: tuple[Medium, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """A snapshot that is gone; ``merging`` are the media that are merged now or later."""

    machine: Machine
    snapshot: Snapshot
    merging: tuple[Medium, ...]
    dropped: tuple[Medium, ...]


def take_snapshot(
    home: Home,
    name_of_machine: str,
    name: str,
    *,
    description: str = "",
    unique: UniqueName = UniqueName.NO,
    memory: bool = True,
    live: bool = False,
    freeze: bool = False,
) -> Taken:
    """A snapshot of a machine as it is now.

    Of a running one with the guest's memory, unless ``memory`` is off; ``live`` and ``freeze`` as
    `drivebay.service.online_snapshots.take_running` has them. Raises StorageError; a failure changes nothing.
    """
    if freeze and memory:
        raise StorageError(
            ErrorKind.INVALID,
            "file systems are frozen only for a snapshot without the guest's memory, with which it goes on "
            "in the middle of what it was writing; leave out --freeze, or add --no-state",
            operation="snapshot",
        )
    with open_registry(home) as registry:
        with registry.view() as view:
            machine = load_live(view, home, name_of_machine)
        if machine.state in RUNNING:
            from drivebay.service.online_snapshots import Wishes, take_running

            wishes = Wishes(description, unique, memory=memory, live=live, freeze=freeze)
            return take_running(registry, machine, name, wishes)
        return _take_stopped(registry, machine, name, description, unique)


def _take_stopped(
    registry: Registry, machine: Machine, name: str, description: str, unique: UniqueName
) -> Taken:
    now = datetime.now(UTC)
    with registry.view() as view:
        tree = view.tree
    chosen = unique_name(machine, name, unique, now)
    plan = plan_take(machine, tree, chosen, taken=now, description=description)
    variables = efi_variables.kept_by(machine, plan.snapshot.uuid)
    with made_diffs(registry, tree, plan.diffs, copies=variables) as intent, registry.change() as change:
        require_same(change, registry.home, machine)
        plan_take(machine, change.tree, chosen, taken=now)  # others may use the media by now: refused then
        _let_state_go_on(machine, plan)
        record_diffs(change, intent, plan.diffs)
        save(change, plan.machine)
    kind = "saved" if plan.snapshot.state_file else "offline"
    return Taken(machine.name, plan.snapshot, kind, warnings=plan.warnings)


def _let_state_go_on(machine: Machine, plan: TakePlan) -> None:
    """A saved guest goes on with the new images, although it was saved with those below them."""
    if not machine.state_file:
        return
    from drivebay.service.runtime.saved_state import read_header, write_header

    parents = {diff.parent for diff in plan.diffs}
    moved = {str(at.slot) for at in machine.hardware.attachments if at.medium in parents}
    path = os.path.join(machine.folder, machine.state_file)
    header = read_header(path)
    disks = {slot: known for slot, known in header.disks.items() if slot not in moved}
    write_header(path, replace(header, disks=disks))


def restore_snapshot(home: Home, name_of_machine: str, snapshot: str | None = None) -> Restored:
    """Bring back the state that a snapshot (by default the current one) holds; what came since is lost.

    A machine whose snapshot holds the guest's memory is saved afterwards, and goes on from there. Raises
    StorageError; a failure changes nothing.
    """
    with open_registry(home) as registry:
        with registry.view() as view:
            machine, tree = load_live(view, home, name_of_machine), view.tree
        wanted = chosen_snapshot(machine, snapshot)
        _require_state_file(machine, wanted)
        plan = plan_restore(machine, tree, wanted.uuid)
        variables = efi_variables.brought_back(machine, wanted.uuid)
        with made_diffs(registry, tree, plan.diffs, copies=variables) as intent, registry.change() as change:
            require_same(change, home, machine)
            gone = plan_restore(machine, change.tree, wanted.uuid)  # by now others may need some of it
            record_diffs(change, intent, plan.diffs)
            record(change, plan.machine, gone)
            efi_variables.put_back(change, machine, variables)
    return Restored(plan.machine, wanted, gone.dropped, plan.warnings)


def delete_snapshot(home: Home, name_of_machine: str, snapshot: str) -> Deleted:
    """Forget a restore point: no state's contents change, and it is done when this returns.

    What is left of its images is space to be tidied (`drivebay.service.merging.consolidate`). Works
    while the machine runs. Raises StorageError; a failure changes nothing.
    """
    with open_registry(home) as registry, registry.change() as change:
        machine = load(change, name_of_machine)
        wanted = find_snapshot(machine, snapshot)
        plan = plan_delete(machine, change.tree, wanted.uuid)
        record(change, plan.machine, plan)
        change.after_commit(Remove([variables_of(machine, wanted.uuid)]))
    return Deleted(plan.machine, wanted, plan.merging, plan.dropped)


def change_snapshot(
    home: Home,
    name_of_machine: str,
    snapshot: str,
    *,
    name: str | None = None,
    description: str | None = None,
) -> Snapshot:
    """Rename or describe a snapshot. Raises StorageError."""
    with open_registry(home) as registry, registry.change() as change:
        machine = load(change, name_of_machine)
        wanted = find_snapshot(machine, snapshot)
        edited = edit_snapshot(machine, wanted.uuid, name=name, description=description)
        save(change, edited)
    return by_uuid(edited, wanted.uuid)


def chosen_snapshot(machine: Machine, name: str | None) -> Snapshot:
    """The snapshot called ``name``; without a name the current one. Raises StorageError (NOT_FOUND)."""
    if name is not None:
        return find_snapshot(machine, name)
    if machine.current is None:
        raise StorageError(
            ErrorKind.NOT_FOUND,
            f"machine {machine.name!r} has no snapshot yet; drivebay snapshot take makes one",
            operation="restore",
        )
    return by_uuid(machine, machine.current)


def record(change: Change, machine: Machine, plan: RestorePlan | DeletePlan) -> None:
    """Record what a machine becomes, and what ``plan`` says of media and saved states that it leaves."""
    for medium in plan.merging:
        change.put_medium(replace(medium, merging=True))
    save(change, machine)
    files = [path for medium in plan.dropped for path in image_files(medium)]
    for medium in plan.dropped:
        change.remove_medium(medium.uuid)
    refresh(change, [medium.uuid for medium in plan.merging])
    states = [os.path.join(machine.folder, name) for name in plan.state_files]
    if files or states:
        change.after_commit(Remove([*files, *states]))


def _require_state_file(machine: Machine, snapshot: Snapshot) -> None:
    path = os.path.join(machine.folder, snapshot.state_file)
    if snapshot.state_file and not os.path.exists(path):
        raise StorageError(
            ErrorKind.NOT_FOUND,
            f"the guest's memory of snapshot {snapshot.name!r} is gone; put the file back, or delete the "
            "snapshot, which keeps the disks",
            path=path,
            operation="restore",
        )
