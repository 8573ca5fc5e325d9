"""Snapshots of running machines.

The new images are made, and the memory is written, before anything is recorded; then the registry's change
is committed, and the worker puts the images on top, on all disks at the same moment. A crash in between
leaves the images on top, still empty: what the guest had written until then is all below them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from drivebay.errors import StorageError
from drivebay.machines.model import Machine, MachineState
from drivebay.machines.snapshot_names import UniqueName, unique_name
from drivebay.machines.snapshots import TakePlan, plan_take
from drivebay.machines.store import load, save
from drivebay.registry.database import Intent, Registry
from drivebay.registry.home import Home
from drivebay.service import efi_variables
from drivebay.service.diffs import made_diffs, record_diffs
from drivebay.service.machines.live import require_same
from drivebay.service.runtime.client import MachineClient, connect
from drivebay.service.runtime.saved_state import state_name
from drivebay.service.snapshots import Taken


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a snapshot of a running machine is to be.

    With the guest's ``memory``, or of its disks only. ``live`` writes most of the memory while the guest
    goes on. ``freeze`` has the guest agent bring the file systems in order before the disks are taken; where
    it does not, the snapshot is taken all the same, with a warning.
    """

    description: str = ""
    unique: UniqueName = UniqueName.NO
    memory: bool = True
    live: bool = False
    freeze: bool = False


def take_running(registry: Registry, machine: Machine, name: str, wishes: Wishes) -> Taken:
    """A snapshot of a machine that runs or is paused. Raises StorageError: the guest goes on as before."""
    now = datetime.now(UTC)
    folder = os.path.basename(machine.snapshot_folder)
    state_file = f"{folder}/{state_name(now)}" if wishes.memory else ""
    with registry.view() as view:
        tree = view.tree
    chosen = unique_name(machine, name, wishes.unique, now)
    plan = plan_take(machine, tree, chosen, taken=now, description=wishes.description, state_file=state_file)
    files = [os.path.join(machine.folder, state_file)] if state_file else []
    variables = efi_variables.kept_by(machine, plan.snapshot.uuid)
    with (
        connect(registry.home, machine.uuid) as client,
        made_diffs(registry, tree, plan.diffs, files=files, copies=variables, in_use=True) as intent,
    ):
        still = (
            _paused(client, machine, files[0], wishes.live)
            if files
            else _frozen(registry.home, client, machine, wishes)
        )
        with still as stillness:
            held = _go_on(registry, client, machine, plan, intent)
    size = sum(os.path.getsize(path) for path in files)
    kind = ("live" if wishes.live else "online") if files else "disks"
    pause = stillness.stopped if files else held
    warnings = (*plan.warnings, *stillness.warnings)
    return Taken(machine.name, plan.snapshot, kind, pause, size, stillness.frozen, warnings)


@dataclass
class _Stillness:
    """For how many seconds the guest was ``stopped``, or its file systems ``frozen``."""

    stopped: float = 0.0
    frozen: float = 0.0
    warnings: tuple[str, ...] = ()


@contextmanager
def _paused(client: MachineClient, machine: Machine, path: str, live: bool) -> Iterator[_Stillness]:
    """The guest's memory in the file at ``path``, and the guest stopped since."""
    stillness = _Stillness()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    started = time.monotonic()
    try:
        answer = client.save_state(path, live=live)
        started = time.monotonic() - float(answer["stopped"])
        yield stillness
    finally:
        if machine.state is not MachineState.PAUSED:
            client.resume()
            stillness.stopped = time.monotonic() - started


@contextmanager
def _frozen(home: Home, client: MachineClient, machine: Machine, wishes: Wishes) -> Iterator[_Stillness]:
    """The guest's file systems flushed and frozen, if that is wanted and can be had."""
    stillness = _Stillness()
    started = time.monotonic()
    if not wishes.freeze or (trouble := _freeze(client, machine)):
        stillness.warnings = (trouble,) if wishes.freeze else ()
        yield stillness
        return
    try:
        yield stillness
    finally:
        stillness.warnings = _thaw(home, client, machine)
        stillness.frozen = time.monotonic() - started


def _freeze(client: MachineClient, machine: Machine) -> str:
    """Freeze; a warning if that can't be done."""
    reason = "the guest is paused; drivebay machine resume lets it go on"
    if machine.state is not MachineState.PAUSED:
        try:
            if client.guest_freeze():
                return ""
            client.guest_thaw()
            reason = "the guest agent knows of none"
        except StorageError as error:
            reason = error.message
    return (
        "the guest's file systems were not frozen, so the guest finds them, after a restore, as after a "
        f"power cut: {reason}"
    )


def _thaw(home: Home, client: MachineClient, machine: Machine) -> tuple[str, ...]:
    try:
        client.guest_thaw()
    except StorageError as error:
        with suppress(StorageError):  # a supervisor that takes over from a dead one thaws
            connect(home, machine.uuid).close()
        return (f"the guest's file systems may still be frozen; that is tried on: {error.message}",)
    return ()


def _go_on(
    registry: Registry, client: MachineClient, machine: Machine, plan: TakePlan, intent: Intent
) -> float:
    """Record the snapshot, and let the worker write the new images; for how many seconds it held writers."""
    images = {diff.uuid: diff.path for diff in plan.diffs}
    attachments = plan.machine.hardware.attachments
    tops = {str(at.slot): images[at.medium] for at in attachments if at.medium in images}
    with client.worker() as worker:
        _commit(registry, machine, plan, intent)
        try:
            return worker.push(tops) if tops else 0.0
        except StorageError:
            worker.quit()  # another one takes over, with the images that the registry tells
            raise


def _commit(registry: Registry, machine: Machine, plan: TakePlan, intent: Intent) -> None:
    """The one change that makes it a snapshot."""
    with registry.change() as change:
        state = load(change, machine.uuid).state  # paused, maybe
        require_same(change, registry.home, replace(machine, state=state))
        record_diffs(change, intent, plan.diffs)
        save(change, replace(plan.machine, state=state))
