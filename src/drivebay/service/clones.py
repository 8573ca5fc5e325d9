"""Copies of machines, made: every file under an intent, then one change that makes it a machine."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace

from drivebay.chain.apply import Progress
from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.machines.clone_mode import CloneMode
from drivebay.machines.clones import ClonePlan, CloneRequest, ImageCopy, plan_clone
from drivebay.machines.model import Machine, MachineState
from drivebay.machines.mutability import RUNNING
from drivebay.machines.names import require_machine_name
from drivebay.machines.snapshot_tree import find_snapshot
from drivebay.machines.store import load_all, save
from drivebay.machines.write_modes import is_captured
from drivebay.registry.database import Registry, open_registry
from drivebay.registry.home import Home
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service import efi_variables
from drivebay.service.copying import Run, bytes_to_copy, copy_run
from drivebay.service.diffs import make_diff
from drivebay.service.machines.live import load_live, require_same


@dataclass(frozen=True, slots=True)
class Cloned:
    """A new machine, the images that were made for it, and how many bytes were copied."""

    machine: Machine
    images: tuple[Medium, ...]
    copied: int


def clone_machine(
    home: Home,
    name_of_machine: str,
    name: str | None = None,
    *,
    folder: str | None = None,
    mode: CloneMode = CloneMode.MACHINE,
    snapshot: str | None = None,
    linked: bool = False,
    keep_disk_names: bool = False,
    progress: Progress | None = None,
) -> Cloned:
    """Copy a machine, or one state of it; ``linked`` makes only new diffs on what a snapshot holds.

    ``name`` is by default that of the machine with "Clone" behind it. The machine may run only if nothing
    of its current state is copied. Raises StorageError; a failure or an interruption leaves nothing behind.
    """
    with open_registry(home) as registry:
        with registry.view() as view:
            machine, tree, others = load_live(view, home, name_of_machine), view.tree, load_all(view)
        chosen = name or f"{machine.name} Clone"
        require_machine_name(chosen)
        _require_free(chosen, others)
        place = os.path.realpath(folder or os.path.join(home.machines, chosen))
        state = None if snapshot is None else find_snapshot(machine, snapshot).uuid
        wanted = CloneRequest(chosen, place, mode, state, linked, keep_disk_names)
        plan = plan_clone(machine, tree, wanted)
        _require_still(machine, plan, tree, of_snapshot=state is not None)
        return _carry_out(registry, machine, tree, plan, progress)


def _carry_out(
    registry: Registry, machine: Machine, tree: MediaTree, plan: ClonePlan, progress: Progress | None
) -> Cloned:
    clone = plan.machine
    _require_free_folder(clone)
    made = MediaTree.of([*tree.media.values(), *(copy.medium for copy in plan.copies)])
    images = [copy.medium.path for copy in plan.copies] + [diff.path for diff in plan.diffs]
    states = [target for _, target in plan.state_files]
    folders = [clone.snapshot_folder, clone.folder]
    variables = efi_variables.there(plan.variables)
    with registry.intend([*images, *states, *(target for _, target in variables), *folders]) as intent:
        _make_folders(clone)
        copied = _copy_images(made, plan.copies, progress)
        for diff in plan.diffs:
            make_diff(made, diff)
        for source, target in plan.state_files:
            _copy_state(source, target)
        efi_variables.make(variables)
        with registry.change() as change:
            require_same(change, registry.home, machine)
            for copy in plan.copies:
                change.put_medium(copy.medium)
            for diff in plan.diffs:
                change.put_medium(diff.medium)
            save(change, clone)
            change.finish(intent)
    new = tuple(copy.medium for copy in plan.copies) + tuple(diff.medium for diff in plan.diffs)
    return Cloned(clone, new, copied)


def _copy_images(tree: MediaTree, copies: tuple[ImageCopy, ...], progress: Progress | None) -> int:
    runs = [_run(tree, copy) for copy in copies]
    total = sum(map(bytes_to_copy, runs))
    done = 0

    def advance(length: int) -> None:
        nonlocal done
        done += length
        if progress is not None:
            progress(done, total)

    for run, copy in zip(runs, copies, strict=True):
        parent = copy.medium.parent
        copy_run(run, copy.medium, [] if parent is None else list(tree.chain(parent)), advance)
    return done


def _run(tree: MediaTree, copy: ImageCopy) -> Run:
    images = tuple(tree.chain(copy.source))
    uuids = [image.uuid for image in images]
    return Run(images, len(images) if copy.below is None else uuids.index(copy.below))


def _copy_state(source: str, target: str) -> None:
    from drivebay.service.runtime.saved_state import read_header, write_header

    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise from_os_error(error, "copy a saved state", path=source) from error
    write_header(target, replace(read_header(target), disks={}))  # the clone's disks are other files


def _make_folders(clone: Machine) -> None:
    try:
        os.makedirs(clone.snapshot_folder, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, "make a machine's folder", path=clone.snapshot_folder) from error


def _require_still(machine: Machine, plan: ClonePlan, tree: MediaTree, *, of_snapshot: bool) -> None:
    """What is copied must not be written meanwhile."""
    current = {at.medium for at in machine.hardware.attachments}
    written = [copy for copy in plan.copies if copy.source in current]
    if machine.state in RUNNING and (written or plan.machine.state is MachineState.SAVED):
        why = "so its current state can't be copied; stop it, or clone a snapshot (--snapshot)"
        if of_snapshot and not any(is_captured(tree, tree.get(copy.source)) for copy in written):
            why = "and a snapshot does not keep this disk; stop it, or make a linked clone (--linked)"
        raise StorageError(
            ErrorKind.STATE,
            f"machine {machine.name!r} is {machine.state.value}, {why}",
            path=tree.get(written[0].source).path if written else None,
            operation="clone",
        )


def _require_free(name: str, others: list[Machine]) -> None:
    if any(other.name == name for other in others):
        raise StorageError(
            ErrorKind.IN_USE,
            f"there is a machine called {name!r} already; choose another name (--name)",
            operation="clone",
        )


def _require_free_folder(clone: Machine) -> None:
    if os.path.isdir(clone.folder) and os.listdir(clone.folder):
        raise StorageError(
            ErrorKind.INVALID,
            "this folder is not empty; choose another name or folder for the clone",
            path=clone.folder,
            operation="clone",
        )
