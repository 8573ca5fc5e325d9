"""Machines deleted, with those images in their folders that nobody else needs.

Images in the folder that others use stay where they are. A machine whose disks others build on (linked
clones) is not deleted: its images would stay behind without an owner (virtual-storage specification, P11).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.document import chain_of
from drivebay.machines.efi_variables import all_variables
from drivebay.machines.model import Machine
from drivebay.machines.mutability import require_not_running
from drivebay.machines.store import delete_machine, machine_names
from drivebay.registry.database import Change, View, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.registry.medium import ALWAYS_DIFFED, MediaTree, Medium, Use
from drivebay.service.deletion import carry_out, plan_deletion
from drivebay.service.machines.live import load_live, load_to_change


@dataclass(frozen=True, slots=True)
class Removal:
    """What deleting a machine comes to: images that go, those in its folder that stay, other files."""

    machine: Machine
    media: tuple[Medium, ...]
    kept: tuple[Medium, ...]
    files: tuple[str, ...]


def plan_removal(home: Home, name: str) -> Removal:
    """What `remove_machine` would do. Raises StorageError: STATE, IN_USE."""
    with open_registry(home) as registry, registry.view() as view:
        return _plan(view, home, name)


def remove_machine(home: Home, name: str, *, now: bool = False) -> Removal:
    """Delete a machine; its images go to the trash, or for good if ``now``. Raises as `plan_removal`."""
    with open_registry(home) as registry, registry.change() as change:
        load_to_change(change, home, name)
        plan = _plan(change, home, name)
        delete_machine(change, plan.machine)
        for medium in plan.media:
            carry_out(change, plan_deletion(change, str(medium.uuid)), now=now)
        _remove_rest(change, plan)
    return plan


def _remove_rest(change: Change, plan: Removal) -> None:
    """The folders go if they are empty by then."""
    folders = [plan.machine.snapshot_folder, plan.machine.folder]
    change.after_commit(Remove([*plan.files, *folders]))


def _plan(view: View, home: Home, name: str) -> Removal:
    machine = load_live(view, home, name)
    require_not_running(machine, "delete a machine")
    tree, inside = view.tree, machine.folder + os.sep
    own = [medium for medium in tree.media.values() if medium.path.startswith(inside)]
    others = [use for use in tree.uses if use.machine != machine.uuid]
    _require_no_clones(tree, machine, {medium.uuid for medium in own}, others, machine_names(view))
    needed = _needed(tree, others, {medium.uuid for medium in own})
    going = [medium for medium in own if medium.uuid not in needed]
    kept = tuple(medium for medium in own if medium.uuid in needed)
    return Removal(machine, tuple(_children_first(tree, going)), kept, tuple(_other_files(machine)))


def _needed(tree: MediaTree, others: list[Use], own: set[UUID]) -> set[UUID]:
    """What stays: media that other machines use, media that lie elsewhere, and all that these build on."""
    elsewhere = set(tree.media) - own
    roots = {use.medium for use in others} | elsewhere
    return {one.uuid for root in roots & set(tree.media) for one in chain_of(tree, root)}


def _require_no_clones(
    tree: MediaTree, machine: Machine, own: set[UUID], others: list[Use], names: dict[UUID, str]
) -> None:
    clones = sorted({names.get(use.machine, str(use.machine)) for use in others if _depends(tree, own, use)})
    if clones:
        raise StorageError(
            ErrorKind.IN_USE,
            f"the disks of {', '.join(map(repr, clones))} build on disks of machine {machine.name!r} (linked "
            "clones); delete those machines first, once they are copied with all that they build on, if they "
            "are still needed (drivebay machine clone --mode all)",
            operation="delete a machine",
        )


def _depends(tree: MediaTree, own: set[UUID], use: Use) -> bool:
    """Whether a disk of another machine builds on one of ours that isn't made for being shared."""
    ancestors = list(chain_of(tree, use.medium))[1:]
    return any(one.uuid in own and one.type not in ALWAYS_DIFFED for one in ancestors)


def _children_first(tree: MediaTree, media: list[Medium]) -> list[Medium]:
    return sorted(media, key=lambda medium: len(list(chain_of(tree, medium.uuid))), reverse=True)


def _other_files(machine: Machine) -> list[str]:
    names = {snapshot.state_file for snapshot in machine.snapshots} | {machine.state_file, "serial.log"}
    paths = [os.path.join(machine.folder, name) for name in sorted(names - {""})]
    return [path for path in (*paths, *all_variables(machine)) if os.path.lexists(path)]
