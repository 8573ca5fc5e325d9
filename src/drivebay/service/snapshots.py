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
from drivebay.machines.model import Machine, MachineState, Snapshot
from drivebay.machines.snapshot_names import UniqueName, unique_name
from drivebay.machines.snapshot_tree import by_uuid, find_snapshot
from drivebay.machines.snapshots import (
    DeletePlan,
    RestorePlan,
    edit_snapshot,
    plan_delete,
    plan_restore,
    plan_take,
)
from drivebay.machines.store import load, refresh, save
from drivebay.registry.database import Change, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.registry.medium import Medium
from drivebay.service.diffs import image_files, made_diffs, record_diffs


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was taken. ``paused`` is for how many seconds the guest stood still.

    ``kind``: "offline", "saved", "online", "live" or "disks" (of a running machine, without its memory).
    """

    machine: str
    snapshot: Snapshot
    kind: str
    paused: float = 0.0
    memory: int = 0
    frozen: bool = False
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


def take_stopped(
    home: Home, name_of_machine: str, name: str, *, description: str = "", unique: UniqueName = UniqueName.NO
) -> Taken:
    """A snapshot of a machine that is off, or saved. Raises StorageError; a failure changes nothing."""
    now = datetime.now(UTC)
    with open_registry(home) as registry:
        with registry.view() as view:
            machine, tree = load(view, name_of_machine), view.tree
        require_stopped(machine)
        chosen = unique_name(machine, name, unique, now)
        plan = plan_take(machine, tree, chosen, taken=now, description=description)
        with made_diffs(registry, tree, plan.diffs) as intent, registry.change() as change:
            require_unchanged(change, machine)
            plan_take(machine, change.tree, chosen, taken=now)  # the media may have changed: refused then
            record_diffs(change, intent, plan.diffs)
            save(change, plan.machine)
    kind = "saved" if plan.snapshot.state_file else "offline"
    return Taken(machine.name, plan.snapshot, kind, warnings=plan.warnings)


def restore_snapshot(home: Home, name_of_machine: str, snapshot: str | None = None) -> Restored:
    """Bring back the state that a snapshot (by default the current one) holds; what came since is lost.

    A machine whose snapshot holds the guest's memory is saved afterwards, and goes on from there. Raises
    StorageError; a failure changes nothing.
    """
    with open_registry(home) as registry:
        with registry.view() as view:
            machine, tree = load(view, name_of_machine), view.tree
        require_stopped(machine)
        wanted = chosen_snapshot(machine, snapshot)
        _require_state_file(machine, wanted)
        plan = plan_restore(machine, tree, wanted.uuid)
        with made_diffs(registry, tree, plan.diffs) as intent, registry.change() as change:
            require_unchanged(change, machine)
            gone = plan_restore(machine, change.tree, wanted.uuid)  # by now others may need some of it
            record_diffs(change, intent, plan.diffs)
            record(change, plan.machine, gone)
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


def require_stopped(machine: Machine) -> None:
    """Raises StorageError (STATE) for a machine that runs."""
    if machine.state in (MachineState.RUNNING, MachineState.PAUSED):
        raise StorageError(
            ErrorKind.STATE,
            f"machine {machine.name!r} is {machine.state.value}; stop it first "
            f"(drivebay machine stop {machine.name!r})",
            operation="snapshot",
        )


def require_unchanged(change: Change, machine: Machine) -> None:
    """Whether nobody changed ``machine`` since it was read. Raises StorageError (STATE)."""
    if load(change, machine.uuid) != machine:
        raise StorageError(
            ErrorKind.STATE,
            f"machine {machine.name!r} was changed meanwhile by another command; look at it, and try again",
            operation="snapshot",
        )


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
