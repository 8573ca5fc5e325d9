"""The supervisor's changes of the registry."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.model import Machine, MachineState, Slot
from drivebay.registry.database import Registry, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.service.merge_links import restore_links
from drivebay.service.runtime.plan import RunPlan, plan_run

_PATIENCE = 10.0  # seconds for a merge to notice that its worker has ended
_PAUSE = 0.05


def read_machine(home: Home, uuid: UUID, run_folder: str, *, served: bool = False) -> tuple[Machine, RunPlan]:
    """The machine as the registry has it now, and what it needs to run.

    Unless its disks are ``served`` already, its images are made ready for a worker. Raises StorageError,
    IN_USE where they are being merged all the time.
    """
    deadline = time.monotonic() + _PATIENCE
    with open_registry(home) as registry:
        while True:
            try:
                return _read_between_changes(registry, uuid, run_folder, served=served)
            except StorageError as error:
                if error.kind is not ErrorKind.IN_USE or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)


def _read_between_changes(
    registry: Registry, uuid: UUID, run_folder: str, *, served: bool
) -> tuple[Machine, RunPlan]:
    """What a mere view tells may be about to be unlinked: a worker would write there, and lose it all."""
    with registry.change() as change:
        machine = store.load(change, uuid)
        if not served:
            restore_links(change, machine)
        return machine, plan_run(machine, change.tree, run_folder)


def change_machine(home: Home, uuid: UUID, edit: Callable[[Machine], Machine]) -> Machine:
    """Change the machine in one transaction; a state file that it names no more is removed with it."""
    with open_registry(home) as registry, registry.change() as change:
        before = store.load(change, uuid)
        after = edit(before)
        if after != before:
            store.save(change, after)
        if before.state_file and after.state_file != before.state_file and not _in_snapshot(before):
            change.after_commit(Remove([os.path.join(before.folder, before.state_file)]))
    return after


def record_state(home: Home, uuid: UUID, state: MachineState, state_file: str = "") -> Machine:
    """Record in which state the machine is."""
    return change_machine(home, uuid, lambda one: replace(one, state=state, state_file=state_file))


def record_eject(home: Home, uuid: UUID, slot: Slot) -> Machine:
    """The guest has ejected a medium: it leaves the configuration, unless that is only for now (11.1)."""

    def edit(machine: Machine) -> Machine:
        attachments = tuple(
            replace(each, medium=None) if each.slot == slot and not each.temp_eject else each
            for each in machine.hardware.attachments
        )
        return replace(machine, hardware=replace(machine.hardware, attachments=attachments))

    return change_machine(home, uuid, edit)


def _in_snapshot(machine: Machine) -> bool:
    """Whether a snapshot has the machine's state file: it was restored from there."""
    return any(each.state_file == machine.state_file for each in machine.snapshots)
