"""Machines by their names, whether they run or not: for commands."""

from __future__ import annotations

import time
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.model import Machine, MachineState
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.service.runtime.client import MachineClient, connect, is_running
from drivebay.service.runtime.record import record_state
from drivebay.service.worker import rates

_LIVE = (MachineState.RUNNING, MachineState.PAUSED)


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
    if not is_running(home, machine.uuid):
        return {"name": machine.name, "uuid": str(machine.uuid), "state": machine.state.value}
    with connect(home, machine.uuid) as client:
        status = client.status()
        if interval:
            before = status["disks"]
            time.sleep(interval)
            status = client.status()
            for slot, disk in status["disks"].items():
                disk["rates"] = rates(before[slot], disk) if slot in before else {}
    return status
