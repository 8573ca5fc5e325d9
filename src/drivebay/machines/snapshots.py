"""Taking, restoring and deleting snapshots, planned (virtual-storage specification, 6).

A snapshot holds a disk's contents by keeping its medium; the current state goes on with a new diff on that.
Plans are values: what the machine becomes, which diffs are to be made first, and which images nobody needs
any more. Deleting moves no data: what no state uses but others build on is marked, to be merged later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid4

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.diffs import NewDiff, new_diff
from drivebay.machines.model import Attachment, Hardware, Machine, MachineState, Snapshot
from drivebay.machines.snapshot_names import check_name
from drivebay.machines.snapshot_tree import MAX_DEPTH, by_uuid, path_to_root
from drivebay.machines.write_modes import is_captured, require_unwritten
from drivebay.registry.medium import DeviceType, MediaTree, Medium, MediumType

_RUNS = (MachineState.RUNNING, MachineState.PAUSED)


@dataclass(frozen=True, slots=True)
class TakePlan:
    """``machine`` is what the machine becomes once ``diffs`` are made; ``snapshot`` is the new one."""

    machine: Machine
    snapshot: Snapshot
    diffs: tuple[NewDiff, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """As `TakePlan`; ``dropped`` media go with their files, ``merging`` ones are marked so.

    ``state_files`` are saved states, named from the machine's folder on, that nothing refers to any more.
    """

    machine: Machine
    diffs: tuple[NewDiff, ...]
    dropped: tuple[Medium, ...]
    merging: tuple[Medium, ...] = ()
    state_files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """As `RestorePlan`; ``merging`` media stay for their children until one of them is left."""

    machine: Machine
    merging: tuple[Medium, ...]
    dropped: tuple[Medium, ...] = ()
    state_files: tuple[str, ...] = ()


def plan_take(
    machine: Machine,
    tree: MediaTree,
    name: str,
    *,
    taken: datetime,
    description: str = "",
    state_file: str = "",
    uuid: UUID | None = None,
) -> TakePlan:
    """A snapshot of the current state (table 6.2, "take").

    ``state_file`` (named from the machine's folder on) is that of a guest that runs; that of a saved machine
    is shared. Raises StorageError.
    """
    check_name(name)
    if sum(1 for _ in path_to_root(machine)) >= MAX_DEPTH:
        raise _refused(
            f"machine {machine.name!r} has {MAX_DEPTH} snapshots upon each other, which is the limit; "
            "delete some of them"
        )
    diffs = _diffs(machine, tree, machine.hardware)
    state = state_file or machine.state_file
    snapshot = Snapshot(
        uuid or uuid4(), name, taken, machine.hardware, machine.current, description, state_file=state
    )
    after = replace(
        machine,
        hardware=_with_diffs(machine.hardware, diffs),
        snapshots=(*machine.snapshots, snapshot),
        current=snapshot.uuid,
        modified=False,
    )
    warnings = uncaptured(machine.hardware, tree) if state else ()
    return TakePlan(after, snapshot, tuple(diffs.values()), warnings)


def plan_restore(machine: Machine, tree: MediaTree, snapshot: UUID) -> RestorePlan:
    """The current state becomes a snapshot's again; what changed since is lost (table 6.2, "restore").

    Raises StorageError (STATE) while the machine runs.
    """
    if machine.state in _RUNS:
        raise _refused(
            f"machine {machine.name!r} is {machine.state.value}; stop it before you restore a snapshot "
            f"(drivebay machine stop {machine.name!r})"
        )
    kept = by_uuid(machine, snapshot)
    diffs = _diffs(machine, tree, kept.hardware)
    after = replace(
        machine,
        hardware=_with_diffs(kept.hardware, diffs),
        current=kept.uuid,
        state=MachineState.SAVED if kept.state_file else MachineState.POWERED_OFF,
        state_file=kept.state_file,
        modified=False,
    )
    unused = _unused(machine, tree, machine.hardware.attachments, None)
    dropped, merging = _sorted_out(machine, tree, [one for one in unused if one.parent is not None])
    warnings = uncaptured(kept.hardware, tree) if kept.state_file else ()
    states = _forgotten_states(machine, after)
    return RestorePlan(after, tuple(diffs.values()), dropped, merging, states, warnings)


def plan_delete(machine: Machine, tree: MediaTree, snapshot: UUID) -> DeletePlan:
    """The machine without a restore point; no state's contents change (table 6.2, "delete"; 5.6).

    Its children take its place, however many there are.
    """
    gone = by_uuid(machine, snapshot)
    left = tuple(
        replace(one, parent=gone.parent) if one.parent == snapshot else one
        for one in machine.snapshots
        if one.uuid != snapshot
    )
    was_current = machine.current == snapshot
    after = replace(
        machine,
        snapshots=left,
        current=gone.parent if was_current else machine.current,
        modified=machine.modified or was_current,
    )
    unused = _unused(machine, tree, gone.hardware.attachments, snapshot)
    dropped, merging = _sorted_out(machine, tree, unused)
    return DeletePlan(after, merging, dropped, _forgotten_states(machine, after))


def edit_snapshot(
    machine: Machine, snapshot: UUID, *, name: str | None = None, description: str | None = None
) -> Machine:
    """The machine with a snapshot renamed or described. Raises StorageError."""
    if name is not None:
        check_name(name)
    old = by_uuid(machine, snapshot)
    new = replace(
        old,
        name=old.name if name is None else name,
        description=old.description if description is None else description,
    )
    return replace(machine, snapshots=tuple(new if one is old else one for one in machine.snapshots))


def uncaptured(hardware: Hardware, tree: MediaTree) -> tuple[str, ...]:
    """Warnings for a snapshot with the guest's memory: disks whose contents it does not keep (6.7, P25)."""
    return tuple(
        f"the {tree.base(at.medium).type.value} disk at {at.slot} is no part of the snapshot: once the guest "
        "has written it, the memory that a restore brings back does not agree with it"
        for at in hardware.attachments
        if at.device is DeviceType.DISK
        and at.medium is not None
        and not is_captured(tree, tree.get(at.medium))
    )


def _captured(hardware: Hardware, tree: MediaTree) -> list[tuple[Attachment, Medium]]:
    """The disks whose contents a snapshot keeps."""
    disks = [
        (at, tree.get(at.medium))
        for at in hardware.attachments
        if at.device is DeviceType.DISK and at.medium is not None
    ]
    return [(at, medium) for at, medium in disks if is_captured(tree, medium)]


def _diffs(machine: Machine, tree: MediaTree, hardware: Hardware) -> dict[UUID, NewDiff]:
    """A new diff for each medium of ``hardware`` that needs one, by that medium."""
    diffs = {}
    for _, medium in _captured(hardware, tree):
        require_unwritten(tree, medium.uuid, but=machine.uuid)
        diffs[medium.uuid] = new_diff(tree, medium.uuid, machine.snapshot_folder)
    return diffs


def _with_diffs(hardware: Hardware, diffs: dict[UUID, NewDiff]) -> Hardware:
    attachments = tuple(
        replace(at, medium=diffs[at.medium].uuid) if at.medium in diffs else at for at in hardware.attachments
    )
    return replace(hardware, attachments=attachments)


def _unused(
    machine: Machine, tree: MediaTree, attachments: Iterable[Attachment], snapshot: UUID | None
) -> list[Medium]:
    """The media of one state of the machine that no other state of any machine uses, once it is gone."""
    media = [
        tree.media[at.medium]
        for at in attachments
        if at.device is DeviceType.DISK and at.medium is not None and at.medium in tree.media
    ]
    state = (machine.uuid, snapshot)
    return [
        medium
        for medium in media
        if is_captured(tree, medium)
        and all((use.machine, use.snapshot) == state for use in tree.uses_of(medium.uuid))
    ]


def _sorted_out(
    machine: Machine, tree: MediaTree, unused: list[Medium]
) -> tuple[tuple[Medium, ...], tuple[Medium, ...]]:
    """Which of the unused media are deleted, and which are to be merged; the others just stay.

    A base stays unless this machine's own images build on it: it is the user's, or another machine's.
    """
    dropped = [one for one in unused if one.parent is not None and not tree.children(one.uuid)]
    dropped += _left_alone(tree, {one.uuid for one in dropped})
    merging = [
        one
        for one in unused
        if tree.children(one.uuid) and (one.parent is not None or _own_base(machine, tree, one))
    ]
    return tuple(dropped), tuple(merging)


def _left_alone(tree: MediaTree, dropped: set[UUID]) -> list[Medium]:
    """What deleted snapshots had left to be merged into images that are dropped now: it goes with them."""
    gone, found = set(dropped), []
    below = {tree.media[one].parent for one in gone}
    while below:
        parents = [tree.media[uuid] for uuid in below if uuid is not None and uuid in tree.media]
        alone = [
            one
            for one in parents
            if one.merging
            and one.parent is not None
            and not tree.uses_of(one.uuid)
            and gone.issuperset(child.uuid for child in tree.children(one.uuid))
        ]
        gone |= {one.uuid for one in alone}
        found += alone
        below = {one.parent for one in alone}
    return found


def _own_base(machine: Machine, tree: MediaTree, base: Medium) -> bool:
    return base.type is MediumType.NORMAL and any(
        use.machine == machine.uuid
        for child in descendants(tree, base.uuid)
        for use in tree.uses_of(child.uuid)
    )


def descendants(tree: MediaTree, root: UUID) -> list[Medium]:
    """All media that build on ``root``, parents before children."""
    found = list(tree.children(root))
    for medium in found:
        found.extend(tree.children(medium.uuid))
    return found


def _forgotten_states(before: Machine, after: Machine) -> tuple[str, ...]:
    forgotten = _state_files(before) - _state_files(after)
    return tuple(sorted(forgotten))


def _state_files(machine: Machine) -> set[str]:
    return {machine.state_file, *(snapshot.state_file for snapshot in machine.snapshots)} - {""}


def _refused(message: str) -> StorageError:
    return StorageError(ErrorKind.STATE, message, operation="snapshot")
