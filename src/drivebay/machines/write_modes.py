"""What the write modes of media mean for machines (virtual-storage specification, 4 and 5.2).

The write mode of an attachment is the type of its chain's base. All of it is pure: plans, for the service
to carry out.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.diffs import NewDiff, new_diff, require_may_have_children
from drivebay.machines.model import Attachment, Machine, MachineState, Slot
from drivebay.machines.snapshot_tree import path_to_root
from drivebay.registry.medium import (
    ALWAYS_DIFFED,
    NEVER_DIFFED,
    DeviceType,
    MediaTree,
    Medium,
    MediumType,
)


class Locking(enum.Enum):
    """How a running machine holds a medium's image; its ancestors' are always held for reading (3.4)."""

    EXCLUSIVE = "exclusive"
    READ = "read"
    SHARED = "shared"  # written by several machines at once


def access(tree: MediaTree, medium: UUID) -> Locking:
    """How a machine that starts holds a medium that is attached to it (table 4.2)."""
    found = tree.get(medium)
    base = tree.base(medium)
    if found.device is DeviceType.DVD or base.type is MediumType.READONLY:
        return Locking.READ
    if base.type is MediumType.SHAREABLE:
        return Locking.SHARED
    if base.type in ALWAYS_DIFFED and found.parent is None:
        return Locking.READ
    return Locking.EXCLUSIVE


def needs_diff(tree: MediaTree, medium: UUID) -> bool:
    """Whether attaching a medium puts a diff on it, as the image itself must not be written (5.2)."""
    found = tree.get(medium)
    if found.type in ALWAYS_DIFFED:
        return True
    if not is_captured(tree, found):
        return False
    return bool(tree.children(medium)) or _in_snapshot(tree, medium) or _append_only(found)


def is_captured(tree: MediaTree, medium: Medium) -> bool:
    """Whether snapshots keep a medium's contents: those of disks that may have diffs (table 6.2)."""
    return medium.device is DeviceType.DISK and tree.base(medium.uuid).type not in NEVER_DIFFED


def _in_snapshot(tree: MediaTree, medium: UUID) -> bool:
    return any(use.snapshot is not None for use in tree.uses_of(medium))


def _append_only(medium: Medium) -> bool:
    return medium.format == "vmdk" and medium.variant.lower() == "streamoptimized"


@dataclass(frozen=True, slots=True)
class AttachPlan:
    """What to attach in place of the medium that was asked for; a ``diff`` is to be made first."""

    medium: UUID
    diff: NewDiff | None = None


def plan_attach(
    machine: Machine, tree: MediaTree, slot: Slot, medium: UUID, previous: Sequence[Attachment] = ()
) -> AttachPlan:
    """What attaching ``medium`` at ``slot`` comes to: itself, a diff that is there, or a new one (5.2).

    ``previous`` are attachments that the same edit took away, the youngest last: a diff among them is
    taken up again. Raises StorageError.
    """
    _require_new(machine, tree, medium)
    if not needs_diff(tree, medium):
        return AttachPlan(medium)
    parent = medium
    if tree.get(medium).parent is None:
        if (known := _reusable(machine, tree, slot, medium, previous)) is not None:
            return AttachPlan(known)
        parent = _frozen_by_snapshot(machine, tree, slot, medium) or medium
    require_unwritten(tree, parent)
    diff = new_diff(tree, parent, machine.snapshot_folder)
    return AttachPlan(diff.uuid, diff)


def _require_new(machine: Machine, tree: MediaTree, medium: UUID) -> None:
    found = tree.get(medium)
    there = [at for at in machine.hardware.attachments if at.medium == medium]
    if there and found.device is not DeviceType.DVD:
        raise StorageError(
            ErrorKind.IN_USE,
            f"this medium is attached to machine {machine.name!r} already, at {there[0].slot}; "
            "detach it there first, or make a copy",
            path=found.path,
            operation="attach",
        )


def _reusable(
    machine: Machine, tree: MediaTree, slot: Slot, base: UUID, previous: Sequence[Attachment]
) -> UUID | None:
    """The diff of ``base`` among the previous attachments: that of the slot wins, else the youngest."""
    taken = {at.medium for at in machine.hardware.attachments}
    free = [at for at in on_base(tree, previous, base) if at.medium not in taken | {base}]
    exact = [at for at in free if at.slot == slot]
    chosen = exact or free
    return chosen[-1].medium if chosen else None


def _frozen_by_snapshot(machine: Machine, tree: MediaTree, slot: Slot, base: UUID) -> UUID | None:
    """What the nearest snapshot that knows ``base`` holds of it: at the slot, else the deepest."""
    for snapshot in path_to_root(machine):
        known = on_base(tree, snapshot.hardware.attachments, base)
        if exact := [at for at in known if at.slot == slot]:
            return exact[0].medium
        if known:
            return max(known, key=lambda at: _depth(tree, at.medium)).medium
    return None


def on_base(tree: MediaTree, attachments: Iterable[Attachment], base: UUID) -> list[Attachment]:
    """Those attachments whose medium is ``base`` or builds on it."""
    return [
        at
        for at in attachments
        if at.medium is not None and at.medium in tree.media and tree.base(at.medium).uuid == base
    ]


def _depth(tree: MediaTree, medium: UUID | None) -> int:
    return 0 if medium is None else sum(1 for _ in tree.chain(medium))


def require_unwritten(tree: MediaTree, parent: UUID, but: UUID | None = None) -> None:
    """Whether no machine (``but`` one, whose own current state moves off it) writes ``parent`` itself.

    A diff on an image that is written would change with it. Raises StorageError (STATE).
    """
    writers = [use for use in tree.uses_of(parent) if use.snapshot is None and use.machine != but]
    if writers:
        raise StorageError(
            ErrorKind.STATE,
            f"this image is attached to a machine directly ({{{writers[0].machine}}}; drivebay medium show "
            "names it), which may write it; a differencing image on it would change with it: detach it "
            "there, or take a snapshot of that machine first",
            path=tree.get(parent).path,
            operation="make a differencing image",
        )


def require_may_be_parent(tree: MediaTree, parent: UUID) -> None:
    """Whether a differencing image may be put on ``parent``. Raises StorageError (STATE)."""
    require_may_have_children(tree, tree.get(parent))
    require_unwritten(tree, parent)


@dataclass(frozen=True, slots=True)
class Reset:
    """Whether the disk at an attachment forgets everything at the next start, and why (P14)."""

    attachment: Attachment
    medium: Medium
    will_reset: bool
    because: str


def reset_plan(machine: Machine, tree: MediaTree) -> list[Reset]:
    """What becomes of the diffs of immutable disks, and of others with auto-reset, at power-on (4.3)."""
    plan = []
    for at in machine.hardware.attachments:
        if at.device is not DeviceType.DISK or at.medium is None or at.medium not in tree.media:
            continue
        medium = tree.get(at.medium)
        if medium.auto_reset or tree.base(medium.uuid).type is MediumType.IMMUTABLE:
            plan.append(Reset(at, medium, *_resets(machine, tree, medium)))
    return plan


def forgotten_down_to(tree: MediaTree, medium: Medium) -> Medium:
    """What a diff builds on once it has forgotten everything.

    With it go the ancestors that deleted snapshots left to be merged into it (4.2). Raises StorageError.
    """
    _, parent, *further = tree.chain(medium.uuid)
    return next((one for one in (parent, *further) if not one.merging), parent)


def may_be_reset(tree: MediaTree, medium: Medium) -> bool:
    """Whether a diff will forget what it holds at some power-on; one that snapshots alone have never does."""
    uses = tree.uses_of(medium.uuid)
    kept = bool(uses) and all(use.snapshot is not None for use in uses)
    return medium.auto_reset and not kept


def _resets(machine: Machine, tree: MediaTree, medium: Medium) -> tuple[bool, str]:
    """The rule itself: whether, and the reason."""
    if medium.parent is None:
        return False, "it is no differencing image"
    if not medium.auto_reset:
        return False, "auto-reset is switched off for its differencing image"
    if tree.children(medium.uuid):
        return False, "other differencing images build on it"
    if machine.state is MachineState.SAVED:
        return False, "the machine goes on from its saved state"
    current = next(path_to_root(machine), None)
    if current is None:
        return True, "the machine has no snapshot"
    if current.state_file:
        return False, f"the current snapshot {current.name!r} was taken while the machine ran"
    return True, f"the current snapshot {current.name!r} was taken while the machine was off"
