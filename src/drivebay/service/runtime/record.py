"""The supervisor's changes of the registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from drivebay.machines import store
from drivebay.machines.model import Machine, MachineState, Slot
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.service.merge_links import restore_links
from drivebay.service.runtime.plan import RunPlan, plan_run


def read_machine(home: Home, uuid: UUID, run_folder: str) -> tuple[Machine, RunPlan]:
    """The machine as the registry has it now, and what it needs to run."""
    with open_registry(home) as registry, registry.view() as view:
        machine = store.load(view, uuid)
        restore_links(view, machine)
        return machine, plan_run(machine, view.tree, run_folder)


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
