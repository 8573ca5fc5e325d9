"""In which states of a machine its hardware may change (virtual-storage specification, 1.2, 1.4, 10, E9)."""

from __future__ import annotations

import dataclasses
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Machine, MachineState

OFF = frozenset({MachineState.POWERED_OFF, MachineState.ABORTED})
RUNNING = frozenset({MachineState.RUNNING, MachineState.PAUSED})


def require_off(machine: Machine, what: str) -> None:
    """Whether ``machine`` is powered off, as ``what`` needs. Raises StorageError (STATE, E9)."""
    require_not_running(machine, what)
    if machine.state is MachineState.SAVED:
        raise _refused(
            machine,
            what,
            "is saved, and its hardware must be the same when it goes on; start it and shut it down, or "
            "forget "
            "its saved state (drivebay machine discard)",
        )


def require_not_running(machine: Machine, what: str) -> None:
    """Whether ``machine`` is off or saved, as ``what`` needs. Raises StorageError (STATE)."""
    if machine.state in RUNNING:
        raise _refused(machine, what, "is running; stop it first (drivebay machine stop)")


def with_hardware(machine: Machine, **changes: Any) -> Machine:
    """The machine with these fields of its hardware, which differs from its snapshot's now."""
    hardware = dataclasses.replace(machine.hardware, **changes)
    return dataclasses.replace(machine, hardware=hardware, modified=True)


def _refused(machine: Machine, what: str, why: str) -> StorageError:
    return StorageError(ErrorKind.STATE, f"can't {what}: machine {machine.name!r} {why}", operation=what)
