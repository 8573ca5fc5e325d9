"""Machines by their names, whether they run or not: for commands."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.model import Machine, MachineState
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.service.runtime.client import MachineClient, connect, is_running
from drivebay.service.runtime.record import record_state
from drivebay.service.worker import rates

_LIVE = (MachineState.RUNNING, MachineState.PAUSED)
_ENDING = 5.0  # seconds from the last that QEMU answers to the end of its supervisor


def running(home: Home, name: str) -> MachineClient:
    """A connection to the running machine ``name``. Raises StorageError (STATE) if it doesn't run."""
    machine = settled(home, name)
    if not is_running(home, machine.uuid):
        saved = machine.state is MachineState.SAVED
        remedy = "drivebay machine start resumes it" if saved else "drivebay machine start starts it"
        raise StorageError(
            ErrorKind.STATE,
            f"machine {machine.name!r} does not run, it is {machine.state.value}; {remedy}",
            operation="reach the machine",
        )
    return connect(home, machine.uuid)


def settled(home: Home, name: str) -> Machine:
    """The machine as the registry has it; one whose processes are all gone is recorded as aborted."""
    with open_registry(home) as registry, registry.view() as view:
        machine = store.load(view, name)
    if machine.state in _LIVE and not is_running(home, machine.uuid):
        return record_state(home, machine.uuid, MachineState.ABORTED)
    return machine


def machine_status(home: Home, name: str, interval: float = 0.0) -> dict[str, Any]:
    """What a machine does; with an ``interval`` in seconds each disk has ``rates`` over that time."""
    machine = settled(home, name)
    if is_running(home, machine.uuid):
        with contextlib.suppress(_EndedError), _unless_it_ends(home, machine.uuid):
            return _status_of(home, machine.uuid, interval)
        machine = settled(home, name)
    return {"name": machine.name, "uuid": str(machine.uuid), "state": machine.state.value}


def wait_until_off(home: Home, name: str, timeout: float | None = None) -> str:
    """Wait until a machine is off, at most ``timeout`` seconds; the state that it is in then.

    Raises StorageError, STATE if it still runs.
    """
    machine = settled(home, name)
    if is_running(home, machine.uuid):
        ending = _unless_it_ends(home, machine.uuid)
        with contextlib.suppress(_EndedError), ending, connect(home, machine.uuid) as client:
            return str(client.wait_stopped(timeout)["state"])
        machine = settled(home, name)
    return machine.state.value


class _EndedError(Exception):
    """The machine ended while it was asked."""


@contextlib.contextmanager
def _unless_it_ends(home: Home, machine: UUID) -> Iterator[None]:
    """A machine that does not answer may be about to end: then that is no error."""
    try:
        yield
    except StorageError as error:
        deadline = time.monotonic() + _ENDING
        while is_running(home, machine):
            if error.kind is not ErrorKind.STATE or error.operation == "wait" or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        raise _EndedError from error


def _status_of(home: Home, machine: UUID, interval: float) -> dict[str, Any]:
    with connect(home, machine) as client:
        status = client.status()
        if interval:
            before = status["disks"]
            time.sleep(interval)
            status = client.status()
            for slot, disk in status["disks"].items():
                disk["rates"] = rates(before[slot], disk) if slot in before else {}
    return status
