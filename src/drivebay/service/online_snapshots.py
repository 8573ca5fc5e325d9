"""Snapshots of running machines.

The new images are made, and the memory is written, before anything is recorded. Then the disks are held: all
is flushed, the images are linked to what lies below them now, the registry's change is committed, and the
worker goes on with them. So a crash at any point leaves disks as they were before or after, and
what the guest knows to be written is in them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from drivebay.chain import open_image
from drivebay.chain.link import renew_link
from drivebay.errors import StorageError
from drivebay.machines.diffs import NewDiff
from drivebay.machines.model import Machine, MachineState
from drivebay.machines.snapshot_names import UniqueName, unique_name
from drivebay.machines.snapshots import TakePlan, plan_take
from drivebay.machines.store import load, save
from drivebay.registry.database import Intent, Registry
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service.diffs import made_diffs, record_diffs
from drivebay.service.machines.live import require_same
from drivebay.service.runtime.client import MachineClient, connect
from drivebay.service.runtime.saved_state import state_name
from drivebay.service.snapshots import Taken
from drivebay.service.worker import WorkerClient


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a snapshot of a running machine is to be.

    With the guest's ``memory``, or of its disks only. ``live`` writes most of the memory while the guest
    goes on. ``freeze`` has the guest agent bring the file systems in order before the disks are taken.
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
    with (
        connect(registry.home, machine.uuid) as client,
        made_diffs(registry, tree, plan.diffs, files=files, in_use=True) as intent,
    ):
        still = _paused(client, machine, files[0], wishes.live) if files else _frozen(client, wishes.freeze)
        with still as stopwatch:
            held = _go_on(registry, client, machine, plan, intent)
    size = sum(os.path.getsize(path) for path in files)
    kind = ("live" if wishes.live else "online") if files else "disks"
    pause = stopwatch.seconds if files else held
    return Taken(machine.name, plan.snapshot, kind, pause, size, wishes.freeze, plan.warnings)


class _Stopwatch:
    """For how long the guest stood still."""

    seconds = 0.0


@contextmanager
def _paused(client: MachineClient, machine: Machine, path: str, live: bool) -> Iterator[_Stopwatch]:
    """The guest's memory in the file at ``path``, and the guest stopped since."""
    watch = _Stopwatch()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    started = time.monotonic()
    try:
        answer = client.save_state(path, live=live)
        started = time.monotonic() - float(answer["stopped"])
        yield watch
    finally:
        if machine.state is not MachineState.PAUSED:
            client.resume()
            watch.seconds = time.monotonic() - started


@contextmanager
def _frozen(client: MachineClient, freeze: bool) -> Iterator[_Stopwatch]:
    """The guest's file systems flushed and frozen, if that is wanted."""
    watch = _Stopwatch()
    if not freeze:
        yield watch
        return
    try:
        client.guest_freeze()
        yield watch
    finally:
        client.guest_thaw()


def _go_on(
    registry: Registry, client: MachineClient, machine: Machine, plan: TakePlan, intent: Intent
) -> float:
    """Record the snapshot, and let the worker write the new images; for how many seconds disks were held."""
    new = {diff.uuid for diff in plan.diffs}
    tops = {str(at.slot): at.medium for at in plan.machine.hardware.attachments if at.medium in new}
    with client.worker() as worker:
        started = time.monotonic()
        worker.hold(list(tops))
        tree = _commit(registry, machine, plan, intent)
        chains = {export: list(tree.chain(top)) for export, top in tops.items() if top is not None}
        _move_over(worker, chains)
        worker.release()
        return time.monotonic() - started


def _commit(registry: Registry, machine: Machine, plan: TakePlan, intent: Intent) -> MediaTree:
    """The one change that makes it a snapshot; the tree after it."""
    with registry.change() as change:
        state = load(change, machine.uuid).state  # paused, maybe
        require_same(change, registry.home, replace(machine, state=state))
        for diff in plan.diffs:
            _link(change.tree, diff)
        record_diffs(change, intent, plan.diffs)
        save(change, replace(plan.machine, state=state))
        return change.tree


def _link(tree: MediaTree, diff: NewDiff) -> None:
    """The image was made while its parent was being written: let it know the parent as it is now."""
    parent = tree.get(diff.parent)
    with open_image(diff.path, diff.format, writable=True) as image:
        renew_link(image, parent.path, parent.format)


def _move_over(worker: WorkerClient, chains: Mapping[str, Sequence[Medium]]) -> None:
    """Let the worker write the new images. If it can't, another one takes over, which the registry tells."""
    try:
        for export, images in chains.items():
            worker.rebase(export, [one.path for one in images], [one.format for one in images])
    except StorageError:
        worker.quit()
        raise
