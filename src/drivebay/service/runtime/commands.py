"""What a supervisor can be asked."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import MachineState, Slot
from drivebay.qemu.arguments import AGENT_SOCKET, SERIAL_SOCKET, VNC_SOCKET
from drivebay.service.runtime.restoring import SavedState, save_state
from drivebay.service.runtime.saved_state import state_name
from drivebay.service.runtime.values import attachment_from_json
from drivebay.service.worker.messages import Message
from drivebay.service.worker.spec import spec_from_json

if TYPE_CHECKING:
    from drivebay.service.runtime.supervisor import Supervisor

_GOING = frozenset({"running", "inmigrate", "prelaunch"})
_OPERATION = "control the machine"


class Commands:
    """Answers the messages of clients, by what they say to ``do``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._own = supervisor
        self._one_at_a_time = asyncio.Lock()
        self._table: dict[str, Callable[[Message], Awaitable[dict[str, Any] | None]]] = {
            "greet": self._greet,
            "status": self._status,
            "stop": self._stop,
            "kill": self._kill,
            "wait": self._wait,
            "pause": self._pause,
            "resume": self._resume,
            "reset": self._reset,
            "save": self._save,
            "save-state": self._save_state,
            "plug": self._plug,
            "unplug": self._unplug,
            "change-medium": self._change_medium,
            "set-limit": self._set_limit,
            "guest-freeze": self._freeze,
            "guest-thaw": self._thaw,
        }

    async def answer(self, message: Message, client: int) -> dict[str, Any]:
        """Do what ``message`` of this client asks. Raises StorageError."""
        command = self._table.get(str(message.get("do")))
        if command is None:
            raise StorageError(
                ErrorKind.INVALID,
                f"there is no command {str(message.get('do'))[:40]!r}; there are {', '.join(self._table)}",
                operation=_OPERATION,
            )
        return await command({**message, "client": client}) or {}

    async def _greet(self, _: Message) -> None:
        """Being answered is all that is asked."""

    async def _status(self, _: Message) -> dict[str, Any]:
        own = self._own
        state = await own.hypervisor.status()
        try:
            disks = await own.work.ask(lambda worker: worker.status())
        except StorageError as error:
            disks = {}
            own.work.trouble = own.work.trouble or str(error)
        return own.facts() | {
            "state": "running" if state in _GOING else "paused",
            "qemu_state": state,
            "reason": own.reason,
            "seconds": time.time() - own.since,
            "supervisor": os.getpid(),
            "worker": own.work.pid,
            "worker_trouble": own.work.trouble,
            "worker_restarts": own.work.restarts,
            "disks": disks,
            "serial": self._socket(SERIAL_SOCKET),
            "agent": self._socket(AGENT_SOCKET),
            "vnc": self._socket(VNC_SOCKET),
        }

    def _socket(self, name: str) -> str | None:
        path = os.path.join(self._own.run_folder, name)
        return path if os.path.exists(path) else None

    async def _stop(self, message: Message) -> dict[str, Any]:
        own, timeout = self._own, _seconds(message)
        if await own.hypervisor.status() not in _GOING:
            raise StorageError(
                ErrorKind.STATE,
                "the guest is paused, so it can't power off; drivebay machine resume lets it go on, "
                "drivebay machine kill ends it",
                operation="stop the machine",
            )
        await own.hypervisor.execute("system_powerdown")
        try:
            async with asyncio.timeout(timeout):
                await own.finished.wait()
        except TimeoutError as error:
            raise StorageError(
                ErrorKind.STATE,
                f"the guest was asked to power off, and still runs after {timeout:.0f} s; wait for it, or "
                "end it with drivebay machine kill (what it has flushed is safe)",
                operation="stop the machine",
            ) from error
        return self._outcome()

    async def _kill(self, _: Message) -> dict[str, Any]:
        await self._own.hypervisor.quit()
        await self._own.finished.wait()
        return self._outcome()

    async def _wait(self, message: Message) -> dict[str, Any]:
        timeout = message.get("timeout")
        try:
            async with asyncio.timeout(None if timeout is None else _seconds(message)):
                await self._own.finished.wait()
        except TimeoutError as error:
            raise StorageError(
                ErrorKind.STATE, f"the machine still runs after {timeout} s; wait longer", operation="wait"
            ) from error
        return self._outcome()

    def _outcome(self) -> dict[str, Any]:
        return {"state": self._own.outcome.value}

    async def _pause(self, _: Message) -> None:
        await self._own.hypervisor.execute("stop")
        await self._own.record(MachineState.PAUSED)

    async def _resume(self, _: Message) -> None:
        own = self._own
        if own.work.trouble:
            own.work.retry()
            raise StorageError(
                ErrorKind.STATE,
                f"no worker serves the machine's disks: {own.work.trouble}. It is being started again; "
                "the guest goes on once it runs",
                operation="resume",
            )
        await own.hypervisor.execute("cont")
        await own.record(MachineState.RUNNING)

    async def _reset(self, _: Message) -> None:
        await self._own.hypervisor.execute("system_reset")

    async def _save(self, _: Message) -> dict[str, Any]:
        own = self._own
        name = os.path.join("Snapshots", state_name())
        path = os.path.join(own.machine.folder, name)
        async with self._one_at_a_time:
            await asyncio.to_thread(os.makedirs, os.path.dirname(path), exist_ok=True)
            header = await save_state(own.hypervisor, own.machine, path, own.accelerator)
            await own.record(MachineState.SAVED, name)
            own.saved = SavedState(path, header)
            await own.hypervisor.quit()
            await own.finished.wait()
        return {"state": MachineState.SAVED.value, "path": path}

    async def _save_state(self, message: Message) -> dict[str, Any]:
        own, path = self._own, _text(message, "path")
        async with self._one_at_a_time:
            live = message.get("live") is True
            await save_state(own.hypervisor, own.machine, path, own.accelerator, live=live)
        return {"path": path, "bytes": os.stat(path).st_size, "stopped": own.hypervisor.seconds_stopped}

    async def _plug(self, message: Message) -> None:
        disk = message.get("disk")
        spec = None if disk is None else spec_from_json(disk)
        await self._own.drives.plug(attachment_from_json(message.get("attachment")), spec)

    async def _unplug(self, message: Message) -> None:
        await self._own.drives.unplug(_slot(message), force=message.get("force") is True)

    async def _change_medium(self, message: Message) -> None:
        disk = message.get("disk")
        spec = None if disk is None else spec_from_json(disk)
        await self._own.drives.change(_slot(message), spec, force=message.get("force") is True)

    async def _set_limit(self, message: Message) -> None:
        group, limit = _text(message, "group"), int(_seconds(message, "limit"))
        await self._own.work.ask(lambda worker: worker.limit(group, limit))

    async def _freeze(self, message: Message) -> dict[str, Any]:
        return {"file_systems": await self._own.freezing.freeze(message["client"])}

    async def _thaw(self, _: Message) -> dict[str, Any]:
        return {"file_systems": await self._own.freezing.thaw()}


def _seconds(message: Message, name: str = "timeout") -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise StorageError(
            ErrorKind.INVALID, f"{name} must be a number, 0 or more; correct it", operation=_OPERATION
        )
    return float(value)


def _text(message: Message, name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value:
        raise StorageError(ErrorKind.INVALID, f"{name} must be a text; give one", operation=_OPERATION)
    return value


def _slot(message: Message) -> Slot:
    controller, _, place = _text(message, "slot").rpartition(":")[0].rpartition(":")
    port, device = place, _text(message, "slot").rpartition(":")[2]
    if not (port.isdecimal() and device.isdecimal()):
        raise StorageError(
            ErrorKind.INVALID, "a slot is CONTROLLER:PORT:DEVICE; give one so", operation=_OPERATION
        )
    return Slot(controller, int(port), int(device))
