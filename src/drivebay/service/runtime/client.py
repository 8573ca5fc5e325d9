"""Speaking to a running machine's supervisor."""

from __future__ import annotations

import os
import socket
import time
from functools import partial
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Attachment, Slot
from drivebay.registry.home import Home
from drivebay.service.runtime.launch import launch
from drivebay.service.runtime.presence import CONTROL_SOCKET, has_supervisor, qemu_pid
from drivebay.service.runtime.values import attachment_to_json
from drivebay.service.worker import DiskSpec, WorkerClient
from drivebay.service.worker.control_client import ControlClient
from drivebay.service.worker.messages import Message
from drivebay.service.worker.spec import spec_to_json

STOP_TIMEOUT = 120.0  # seconds that a guest gets to power off
_ANSWER_TIMEOUT = 600.0
_CONNECT_TIMEOUT = 60.0


def is_running(home: Home, machine: UUID) -> bool:
    """Whether a machine runs, or is being started."""
    folder = home.run_folder(machine)
    return qemu_pid(folder) is not None or has_supervisor(folder)


def connect(home: Home, machine: UUID) -> MachineClient:
    """A connection to a running machine; a supervisor that died is replaced by a new one first.

    Raises StorageError (STATE) for a machine that doesn't run.
    """
    folder = home.run_folder(machine)
    deadline = time.monotonic() + _CONNECT_TIMEOUT
    while True:
        _require_supervisor(home, machine, folder)
        try:
            return _greeted(folder)
        except StorageError:  # it has just begun, or is just dying
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _require_supervisor(home: Home, machine: UUID, folder: str) -> None:
    if has_supervisor(folder):
        return
    if qemu_pid(folder) is None:
        raise StorageError(
            ErrorKind.STATE,
            "this machine does not run; drivebay machine start starts it",
            operation="reach the machine",
        )
    launch(home, machine, {"adopt": True})


def _greeted(folder: str) -> MachineClient:
    """A connection that has been answered. Raises StorageError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client = MachineClient(sock, folder)
    try:
        sock.connect(os.path.join(folder, CONTROL_SOCKET))
        client.greet()
    except OSError as error:
        client.close()
        raise _gone(folder, f"the machine's supervisor does not answer ({error})") from error
    except StorageError:
        client.close()
        raise
    return client


class MachineClient(ControlClient):
    """A connection to a supervisor. Every method raises the StorageError that it answers with."""

    def __init__(self, sock: socket.socket, run_folder: str) -> None:
        super().__init__(sock, "the machine's supervisor", partial(_gone, run_folder))
        self.run_folder = run_folder

    def greet(self) -> None:
        """Find out whether the supervisor answers."""
        self._ask("greet")

    def status(self) -> dict[str, Any]:
        """What the machine and each of its disks does; see docs/internals/runtime.md for the fields."""
        return self._ask("status")

    def stop(self, timeout: float = STOP_TIMEOUT) -> dict[str, Any]:
        """Press the power button, and wait until the guest has powered off; STATE if it does not."""
        return self._ask("stop", timeout, timeout=timeout)

    def kill(self) -> dict[str, Any]:
        """Pull the plug. What the guest has flushed is safe."""
        return self._ask("kill")

    def wait_stopped(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until the machine is off; the answer tells how it ended. STATE if it still runs."""
        return self._ask("wait", timeout, timeout=timeout)

    def pause(self) -> None:
        """Stop the guest's processors."""
        self._ask("pause")

    def resume(self) -> None:
        """Let the guest go on: after a pause, or after an I/O error whose cause is gone."""
        self._ask("resume")

    def reset(self) -> None:
        """Press the reset button."""
        self._ask("reset")

    def save(self) -> dict[str, Any]:
        """Save the guest's state and end; the machine is in state SAVED then."""
        return self._ask("save")

    def save_state(self, path: str, *, live: bool = False) -> dict[str, Any]:
        """Write the guest's state to a new file. The guest is paused from then on, until `resume`.

        With ``live`` it is paused only at the end of that. The answer tells for how many seconds it has
        ``stopped`` by now.
        """
        return self._ask("save-state", path=path, live=live)

    def plug(self, attachment: Attachment, spec: DiskSpec | None) -> None:
        """Give the guest a drive while it runs; None is an empty one. The registry is the caller's matter."""
        self._ask(
            "plug",
            attachment=attachment_to_json(attachment),
            disk=None if spec is None else spec_to_json(spec),
        )

    def unplug(self, slot: Slot, *, force: bool = False) -> None:
        """Take a drive away; without ``force`` only if it was marked hot-pluggable (E8)."""
        self._ask("unplug", slot=str(slot), force=force)

    def change_medium(self, slot: Slot, spec: DiskSpec | None, *, force: bool = False) -> None:
        """Put another medium into a CD or floppy drive, or none. ``force`` breaks the guest's lock (E16)."""
        disk = None if spec is None else spec_to_json(spec)
        self._ask("change-medium", slot=str(slot), disk=disk, force=force)

    def set_limit(self, group: str, limit: int) -> None:
        """Change a bandwidth group's limit, in bytes per second; 0 is none."""
        self._ask("set-limit", group=group, limit=limit)

    def guest_freeze(self) -> int:
        """Have the guest agent flush and freeze the file systems; how many. UNSUPPORTED without an agent."""
        return int(self._ask("guest-freeze")["file_systems"])

    def guest_thaw(self) -> int:
        """Undo `guest_freeze`."""
        return int(self._ask("guest-thaw")["file_systems"])

    def worker(self) -> WorkerClient:
        """A connection to the worker that serves the machine's disks."""
        return WorkerClient.connect(self.run_folder)

    def _ask(self, do: str, patience: float | None = 0.0, **fields: object) -> Message:
        """The answer; ``patience`` is how long the supervisor itself may wait, None for ever."""
        return self._exchange(do, fields, None if patience is None else _ANSWER_TIMEOUT + patience)


def _gone(path: str, what: str) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"{what}; drivebay machine status shows whether the machine still runs",
        path=path,
        operation="reach the machine",
    )
