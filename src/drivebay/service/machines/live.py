"""Machines as they really are: the state that a machine's processes show, and drives of one that runs."""

from __future__ import annotations

import dataclasses
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Attachment, Machine, MachineState
from drivebay.machines.mutability import RUNNING
from drivebay.machines.store import load
from drivebay.registry.database import Change, View
from drivebay.registry.home import Home
from drivebay.registry.medium import MediaTree


def load_live(view: View, home: Home, name: str | UUID) -> Machine:
    """A machine with its real state: one that is recorded as running without a process was aborted."""
    machine = load(view, name)
    if machine.state in RUNNING and not _runs(home, machine):
        return dataclasses.replace(machine, state=MachineState.ABORTED)
    return machine


def load_to_change(change: Change, home: Home, name: str | UUID) -> Machine:
    """`load_live` of a machine that is to be changed. Raises StorageError, IN_USE while it is being started.

    What it starts with has been read already, or is being read.
    """
    machine = load_live(change, home, name)
    if machine.state not in RUNNING and _runs(home, machine):
        raise StorageError(
            ErrorKind.IN_USE,
            f"machine {machine.name!r} is being started, or ends right now; try again in a moment",
            operation="change a machine",
        )
    return machine


def _runs(home: Home, machine: Machine) -> bool:
    from drivebay.service.runtime.client import is_running

    return is_running(home, machine.uuid)


def require_same(change: Change, home: Home, machine: Machine) -> None:
    """Whether nobody changed ``machine`` since it was loaded. Raises StorageError (STATE, IN_USE)."""
    if load_to_change(change, home, machine.uuid) != machine:
        raise StorageError(
            ErrorKind.STATE,
            f"machine {machine.name!r} was changed meanwhile by another command; look at it, and try again",
            operation="change a machine",
        )


def plug(home: Home, machine: Machine, tree: MediaTree, at: Attachment) -> None:
    """Give a running guest a drive that is attached. Raises StorageError."""
    from drivebay.service.runtime.client import connect
    from drivebay.service.runtime.plan import disk_spec

    with connect(home, machine.uuid) as client:
        client.plug(at, disk_spec(machine, tree, at))


def unplug(home: Home, machine: Machine, at: Attachment) -> None:
    """Take a drive from a running guest. Raises StorageError."""
    from drivebay.service.runtime.client import connect

    with connect(home, machine.uuid) as client:
        client.unplug(at.slot, force=True)  # the rules were held here, with the machine's real kinds


def change_medium(home: Home, machine: Machine, tree: MediaTree, at: Attachment, *, force: bool) -> None:
    """Have the drive ``at`` hold its medium, or none. Raises StorageError (E16)."""
    from drivebay.service.runtime.client import connect
    from drivebay.service.runtime.plan import disk_spec

    with connect(home, machine.uuid) as client:
        client.change_medium(at.slot, disk_spec(machine, tree, at), force=force)


def set_limit(home: Home, machine: Machine, group: str, limit: int) -> None:
    """Change the limit of a running machine's group. Raises StorageError."""
    from drivebay.service.runtime.client import connect

    with connect(home, machine.uuid) as client:
        client.set_limit(group, limit)
