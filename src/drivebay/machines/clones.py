"""Copies of machines, planned (virtual-storage specification, 7.2 and 7.3).

A full clone gets images of its own. Each holds what a run of the source's images holds, from one down to the
next that is kept as an image of its own. A linked clone has new diffs on what a snapshot holds.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.clone_mode import CloneMode
from drivebay.machines.clone_names import CloneNames
from drivebay.machines.diffs import NewDiff, new_diff
from drivebay.machines.efi_variables import variables_of
from drivebay.machines.model import Attachment, Hardware, Machine, MachineState, Snapshot
from drivebay.machines.snapshot_tree import by_uuid, path_to_root, subtree
from drivebay.machines.write_modes import is_captured, require_unwritten
from drivebay.registry.medium import ALWAYS_DIFFED, DeviceType, MediaTree, Medium, MediumType


@dataclass(frozen=True, slots=True)
class CloneRequest:
    """What is wanted: of the current state, or of ``snapshot``. ``folder`` (absolute) is the clone's own."""

    name: str
    folder: str
    mode: CloneMode = CloneMode.MACHINE
    snapshot: UUID | None = None
    linked: bool = False
    keep_disk_names: bool = False


@dataclass(frozen=True, slots=True)
class ImageCopy:
    """A new image for ``medium``: it holds what the chain of ``source`` holds above the image ``below``."""

    source: UUID
    below: UUID | None
    medium: Medium


@dataclass(frozen=True, slots=True)
class ClonePlan:
    """The clone, once ``copies`` (parents first), then ``diffs`` and ``state_files`` (from, to) are made.

    ``variables`` are those files of EFI variables (from, to) of its states that are there.
    """

    machine: Machine
    copies: tuple[ImageCopy, ...] = ()
    diffs: tuple[NewDiff, ...] = ()
    state_files: tuple[tuple[str, str], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


def plan_clone(machine: Machine, tree: MediaTree, wanted: CloneRequest) -> ClonePlan:
    """What a clone of ``machine`` is to be. Raises StorageError (INVALID: E49)."""
    if wanted.linked:
        return _linked(machine, tree, wanted)
    snapshots = _kept_snapshots(machine, wanted)
    bare = _bare(machine, wanted, snapshots)
    copies = _copies(machine, tree, bare, wanted)
    made = {copy.source: copy.medium for copy in copies}
    clone = _repointed(bare, {source: medium.uuid for source, medium in made.items()})
    diffs: dict[UUID, NewDiff] = {}
    if snapshots and not _keeps_current(machine, wanted):  # its state is frozen in a snapshot of the clone
        copied = MediaTree.of([*tree.media.values(), *made.values()])
        diffs = _on_top(copied, clone.hardware, clone.snapshot_folder)
    clone = replace(clone, hardware=_moved(clone.hardware, {old: one.uuid for old, one in diffs.items()}))
    states = tuple(
        (os.path.join(machine.folder, state), os.path.join(clone.folder, state))
        for state in sorted({clone.state_file, *(one.state_file for one in clone.snapshots)} - {""})
    )
    renamed = _renamed(clone)
    current = None if _keeps_current(machine, wanted) else wanted.snapshot
    uuids = [(current, None), *((old.uuid, new.uuid) for old, new in _pairs(clone, renamed))]
    variables = tuple((variables_of(machine, old), variables_of(renamed, new)) for old, new in uuids)
    return ClonePlan(renamed, tuple(copies), tuple(diffs.values()), states, variables)


def _pairs(clone: Machine, renamed: Machine) -> Iterable[tuple[Snapshot, Snapshot]]:
    """The clone's snapshots before and after they get UUIDs of their own."""
    return zip(clone.snapshots, renamed.snapshots, strict=True)


def _linked(machine: Machine, tree: MediaTree, wanted: CloneRequest) -> ClonePlan:
    if wanted.snapshot is None or wanted.mode is not CloneMode.MACHINE:
        raise StorageError(
            ErrorKind.INVALID,
            "a linked clone needs a snapshot to build on, and is of mode 'machine', as its source must not "
            "change under it; take a snapshot and name it",
            operation="clone",
        )
    hardware = by_uuid(machine, wanted.snapshot).hardware
    for at in hardware.attachments:
        if at.medium is not None and is_captured(tree, tree.get(at.medium)):
            require_unwritten(tree, at.medium)
    clone = Machine(uuid4(), wanted.name, wanted.folder, hardware)
    diffs = _on_top(tree, hardware, clone.snapshot_folder)
    moved = _moved(hardware, {old: diff.uuid for old, diff in diffs.items()})
    variables = ((variables_of(machine, wanted.snapshot), variables_of(clone)),)
    return ClonePlan(replace(clone, hardware=moved), diffs=tuple(diffs.values()), variables=variables)


def _on_top(tree: MediaTree, hardware: Hardware, folder: str) -> dict[UUID, NewDiff]:
    media = [at.medium for at in hardware.attachments if at.device is DeviceType.DISK and at.medium]
    return {one: new_diff(tree, one, folder) for one in media if is_captured(tree, tree.get(one))}


def _kept_snapshots(machine: Machine, wanted: CloneRequest) -> tuple[Snapshot, ...]:
    """The snapshots that the clone has; the given one is its root."""
    if wanted.mode is CloneMode.ALL:
        return machine.snapshots
    if wanted.mode is CloneMode.MACHINE or wanted.snapshot is None:
        return ()
    root, *others = subtree(machine, wanted.snapshot)
    return (replace(root, parent=None), *others)


def _keeps_current(machine: Machine, wanted: CloneRequest) -> bool:
    """Whether the machine's current state is part of the clone."""
    if wanted.mode is CloneMode.ALL or wanted.snapshot is None:
        return True
    descends = wanted.snapshot in (one.uuid for one in path_to_root(machine))
    return wanted.mode is CloneMode.MACHINE_AND_CHILDREN and descends


def _bare(machine: Machine, wanted: CloneRequest, snapshots: tuple[Snapshot, ...]) -> Machine:
    """The clone with its states, but still on the source's media."""
    current = _keeps_current(machine, wanted)
    hardware = machine.hardware
    if not current and wanted.snapshot is not None:
        hardware = by_uuid(machine, wanted.snapshot).hardware
    saved = current and bool(snapshots) and machine.state is MachineState.SAVED
    return Machine(
        uuid4(),
        wanted.name,
        wanted.folder,
        hardware,
        snapshots,
        (machine.current if current else wanted.snapshot) if snapshots else None,
        MachineState.SAVED if saved else MachineState.POWERED_OFF,
        machine.state_file if saved else "",
        modified=machine.modified or not snapshots,
        description=machine.description,
    )


def _attached(machine: Machine) -> Iterable[Attachment]:
    for hardware in (machine.hardware, *(one.hardware for one in machine.snapshots)):
        yield from hardware.attachments


def _copies(machine: Machine, tree: MediaTree, bare: Machine, wanted: CloneRequest) -> list[ImageCopy]:
    """A new image for each that stays one of its own, parents first."""
    attached = {
        at.medium for at in _attached(bare) if at.medium is not None and at.device is not DeviceType.DVD
    }
    names = CloneNames(machine, bare.name, bare.folder, keep=wanted.keep_disk_names)
    copies: dict[UUID, ImageCopy] = {}
    for source in _kept_images(tree, attached, wanted.mode):
        below = next((one.uuid for one in list(tree.chain(source))[1:] if one.uuid in copies), None)
        parent = copies[below].medium.uuid if below is not None else None
        copies[source] = ImageCopy(source, below, _copied(tree, tree.get(source), parent, names))
    return list(copies.values())


def _kept_images(tree: MediaTree, attached: set[UUID], mode: CloneMode) -> list[UUID]:
    """The images that stay images of their own, parents first."""
    chains = [list(tree.chain(medium)) for medium in sorted(attached)]
    if mode is CloneMode.MACHINE:
        return [chain[0].uuid for chain in chains]
    above: dict[UUID, set[UUID]] = {}
    order: dict[UUID, Medium] = {}
    for chain in chains:
        order |= {one.uuid: one for one in reversed(chain)}
        for child, parent in itertools.pairwise(chain):
            above.setdefault(parent.uuid, set()).add(child.uuid)
    return [
        uuid
        for uuid, medium in order.items()
        if mode is CloneMode.ALL
        or uuid in attached
        or len(above.get(uuid, ())) > 1
        or medium.type in ALWAYS_DIFFED
    ]


def _copied(tree: MediaTree, source: Medium, parent: UUID | None, names: CloneNames) -> Medium:
    """The new medium: of the source's kind, unless a base comes out of a diff (P28: it is a normal one)."""
    uuid = uuid4()
    kept_type = source.type if source.parent is None else MediumType.NORMAL
    format_name, variant = names.format_of(source, differencing=parent is not None)
    path = names.path_of(source, uuid, format_name)
    auto_reset = source.auto_reset and parent is not None
    return Medium(
        uuid,
        path,
        format_name,
        source.device,
        kept_type,
        parent,
        tree.get(source.uuid).size,
        variant,
        auto_reset,
        description=source.description,
    )


def _moved(hardware: Hardware, moves: dict[UUID, UUID]) -> Hardware:
    attachments = tuple(
        replace(at, medium=moves.get(at.medium, at.medium)) if at.medium is not None else at
        for at in hardware.attachments
    )
    return replace(hardware, attachments=attachments)


def _repointed(machine: Machine, moves: dict[UUID, UUID]) -> Machine:
    snapshots = tuple(replace(one, hardware=_moved(one.hardware, moves)) for one in machine.snapshots)
    return replace(machine, hardware=_moved(machine.hardware, moves), snapshots=snapshots)


def _renamed(machine: Machine) -> Machine:
    """The clone's snapshots have UUIDs of their own."""
    new = {one.uuid: uuid4() for one in machine.snapshots}
    snapshots = tuple(
        replace(one, uuid=new[one.uuid], parent=None if one.parent is None else new[one.parent])
        for one in machine.snapshots
    )
    current = None if machine.current is None else new[machine.current]
    return replace(machine, snapshots=snapshots, current=current)
