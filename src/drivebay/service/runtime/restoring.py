"""Saved states: made from a running QEMU, and brought back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.machines.model import Machine, MachineState
from drivebay.qemu.devices import saves_state
from drivebay.service.runtime.hypervisor import Hypervisor
from drivebay.service.runtime.plan import RunPlan, identities
from drivebay.service.runtime.saved_state import StateHeader, read_header, reading, write_header, writing

_POLL = 0.02
_MAX_ROUNDS = 10  # through the memory of a guest that goes on
_FILE = "state"  # QEMU's name of the pipe


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state's file and its header."""

    path: str
    header: StateHeader


def state_to_restore(machine: Machine, plan: RunPlan) -> SavedState | None:
    """The state in which the machine is to go on, if it is a saved one. Raises StorageError.

    It is refused when a disk has changed since (STATE): the guest would mix two contents (3.4).
    """
    if machine.state is not MachineState.SAVED or not machine.state_file:
        return None
    path = os.path.join(machine.folder, machine.state_file)
    header = read_header(path)
    now = identities(plan.specs)
    for slot, was in header.disks.items():
        if slot in now and now[slot] != was:
            raise StorageError(
                ErrorKind.STATE,
                f"the disk at {slot} has changed since the machine was saved, and the guest would not "
                "notice; bring the old disk back, or start afresh with drivebay machine discard",
                path=str(was[0]),
                operation="resume the saved machine",
            )
    return SavedState(path, header)


async def save_state(
    hypervisor: Hypervisor, machine: Machine, path: str, accelerator: str, *, live: bool = False
) -> StateHeader:
    """Write the guest's state to the new file ``path``; the guest is stopped then. Raises StorageError.

    With ``live`` it is only stopped for what it has changed while the rest was being written.
    """
    _require_savable(machine)
    if not live:
        await hypervisor.execute("stop")
    kind = str(await hypervisor.execute("qom-get", path="/machine", property="type"))
    version = await hypervisor.execute("query-version")
    numbers = (str(version["qemu"][part]) for part in ("major", "minor", "micro"))
    header = StateHeader(kind.removesuffix("-machine"), accelerator, ".".join(numbers))
    with writing(path) as (pipe, copier):
        await _migrate(hypervisor, pipe)
        try:
            await asyncio.to_thread(copier.join)
        except OSError as error:
            raise from_os_error(error, "save the machine's state", path=path) from error
        await asyncio.to_thread(write_header, path, header)
    return header


async def _migrate(hypervisor: Hypervisor, pipe: int) -> None:
    try:
        await hypervisor.monitor.give_file(_FILE, pipe)
    finally:
        os.close(pipe)
    # The file takes all that there is: there is nothing to be gentle with.
    await hypervisor.execute("migrate-set-parameters", max_bandwidth=1 << 40)
    await hypervisor.execute("migrate", uri=f"fd:{_FILE}")
    while True:
        answer = await hypervisor.execute("query-migrate")
        if answer["status"] == "completed":
            return
        if answer.get("ram", {}).get("dirty-sync-count", 0) > _MAX_ROUNDS:
            await hypervisor.execute("stop")  # the guest changes its memory faster than it can be written
        if answer["status"] in ("failed", "cancelled"):
            reason = answer.get("error-desc", "it gives no reason")
            raise StorageError(
                ErrorKind.STATE,
                f"QEMU can't save the guest's state: {reason}; is there space for it? "
                "The guest is paused: drivebay machine resume lets it go on",
                operation="save the machine's state",
            )
        await asyncio.sleep(_POLL)


def _require_savable(machine: Machine) -> None:
    if (name := saves_state(machine.hardware)) is not None:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"QEMU can't save a running guest with the NVMe controller {name!r}; stop the machine instead, "
            "or take a snapshot without the memory (--no-state)",
            operation="save the machine's state",
        )


async def restore_state(hypervisor: Hypervisor, path: str) -> None:
    """Fill a QEMU that waits for it with a saved state. Raises StorageError."""
    pipe = reading(path)
    try:
        await hypervisor.monitor.give_file(_FILE, pipe)
    finally:
        os.close(pipe)
    with contextlib.suppress(StorageError):  # QEMU ends when it can't read it: that is told below
        await hypervisor.execute("migrate-incoming", uri=f"fd:{_FILE}")
        if await hypervisor.wait_while("inmigrate") != "internal-error":
            return
    raise hypervisor.failure("QEMU can't read the saved state (start afresh with drivebay machine discard)")


async def add_identities(state: SavedState, plan: RunPlan) -> None:
    """Record what tells whether the disks change from now on; the worker has closed them."""
    disks = await asyncio.to_thread(identities, plan.specs)
    await asyncio.to_thread(write_header, state.path, replace(state.header, disks=disks))
