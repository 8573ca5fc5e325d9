"""What there is to say of a machine's snapshots: what they hold, and what restoring or deleting would do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from drivebay.machines.merge_direction import merges_backward
from drivebay.machines.model import Hardware, Machine, Snapshot
from drivebay.machines.snapshot_tree import find_snapshot
from drivebay.machines.snapshots import plan_delete, plan_restore
from drivebay.machines.write_modes import is_captured, may_be_reset
from drivebay.registry.database import open_registry
from drivebay.registry.medium import DeviceType, MediaTree, Medium
from drivebay.service.diffs import disk_usage, image_files
from drivebay.service.machines.live import load_live
from drivebay.service.snapshots import chosen_snapshot

if TYPE_CHECKING:
    from drivebay.registry.home import Home


@dataclass(frozen=True, slots=True)
class DiskOf:
    """A disk as a state holds it; ``captured`` tells whether that state keeps its contents."""

    slot: str
    medium: Medium
    captured: bool
    disk_usage: int


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A snapshot, or the current state (without one). Sizes are bytes on the host.

    ``disk_usage`` counts the images whose contents this very state added; ``memory`` its saved memory.
    """

    snapshot: Snapshot | None
    is_current: bool
    disks: tuple[DiskOf, ...]
    disk_usage: int
    memory: int


@dataclass(frozen=True, slots=True)
class SnapshotsInfo:
    """A machine, its current state, and its snapshots in the order in which they were taken."""

    machine: Machine
    current: StateInfo
    snapshots: tuple[StateInfo, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """What will become of an image that no state uses any more.

    ``copied`` bytes at most go from ``source`` into ``target``. It stays as it is while several images build
    on it (``waits_for``), and until the next reset where that makes its child forget it (``forgotten``).
    """

    medium: Medium
    source: str
    target: str
    copied: int
    waits_for: tuple[Medium, ...] = ()
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class DeletePreview:
    """What deleting a snapshot would do; ``freed`` bytes on the host are free at once."""

    machine: Machine
    snapshot: Snapshot
    merges: tuple[Merge, ...]
    dropped: tuple[Medium, ...]
    freed: int


@dataclass(frozen=True, slots=True)
class RestorePreview:
    """What restoring a snapshot would lose: images, and a saved state."""

    machine: Machine
    snapshot: Snapshot
    dropped: tuple[Medium, ...]
    loses_saved_state: bool
    freed: int


def snapshots_info(home: Home, name_of_machine: str) -> SnapshotsInfo:
    """All snapshots of a machine. Raises StorageError."""
    with open_registry(home) as registry, registry.view() as view:
        machine, tree = load_live(view, home, name_of_machine), view.tree
    current = _state(machine, tree, None, machine.hardware, machine.state_file)
    snapshots = sorted(machine.snapshots, key=lambda snapshot: snapshot.taken)
    states = [_state(machine, tree, one, one.hardware, one.state_file) for one in snapshots]
    return SnapshotsInfo(machine, current, tuple(states))


def preview_restore(home: Home, name_of_machine: str, snapshot: str | None = None) -> RestorePreview:
    """What `drivebay.service.snapshots.restore_snapshot` would lose. Raises StorageError, as that does."""
    with open_registry(home) as registry, registry.view() as view:
        machine, tree = load_live(view, home, name_of_machine), view.tree
    wanted = chosen_snapshot(machine, snapshot)
    plan = plan_restore(machine, tree, wanted.uuid)
    loses = machine.state_file in plan.state_files and bool(machine.state_file)
    return RestorePreview(
        machine, wanted, plan.dropped, loses, _freed(machine, plan.dropped, plan.state_files)
    )


def preview_delete(home: Home, name_of_machine: str, snapshot: str) -> DeletePreview:
    """What `drivebay.service.snapshots.delete_snapshot` would do (P26). Raises StorageError."""
    with open_registry(home) as registry, registry.view() as view:
        machine, tree = load_live(view, home, name_of_machine), view.tree
    wanted = find_snapshot(machine, snapshot)
    plan = plan_delete(machine, tree, wanted.uuid)
    merges = tuple(_merge(tree, medium) for medium in plan.merging)
    return DeletePreview(
        machine, wanted, merges, plan.dropped, _freed(machine, plan.dropped, plan.state_files)
    )


def _merge(tree: MediaTree, medium: Medium) -> Merge:
    children = tree.children(medium.uuid)
    if len(children) > 1:
        return Merge(medium, medium.path, medium.path, 0, tuple(children))
    child = children[0]
    if may_be_reset(tree, child):
        return Merge(medium, medium.path, medium.path, 0, forgotten=True)
    own, other = disk_usage(image_files(medium)), disk_usage(image_files(child))
    if merges_backward(is_base=medium.parent is None, size=own, child_size=other):
        return Merge(medium, child.path, medium.path, other)
    return Merge(medium, medium.path, child.path, own)


def _state(
    machine: Machine, tree: MediaTree, snapshot: Snapshot | None, hardware: Hardware, state_file: str
) -> StateInfo:
    disks = tuple(
        DiskOf(str(at.slot), medium, is_captured(tree, medium), disk_usage(image_files(medium)))
        for at in hardware.attachments
        if at.device is DeviceType.DISK and (medium := _known(tree, at.medium)) is not None
    )
    is_current = snapshot is None or snapshot.uuid == machine.current
    own = sum(disk.disk_usage for disk in disks if disk.captured)
    memory = disk_usage([os.path.join(machine.folder, state_file)]) if state_file else 0
    return StateInfo(snapshot, is_current, disks, own, memory)


def _known(tree: MediaTree, medium: UUID | None) -> Medium | None:
    return None if medium is None else tree.media.get(medium)


def _freed(machine: Machine, dropped: tuple[Medium, ...], states: tuple[str, ...]) -> int:
    files = [path for medium in dropped for path in image_files(medium)]
    return disk_usage([*files, *(os.path.join(machine.folder, state) for state in states)])
