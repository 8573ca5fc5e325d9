"""Which processes of a machine live: told by locks and process numbers in its run folder."""

from __future__ import annotations

import os
from pathlib import Path

from drivebay.qemu.arguments import PID_FILE, QMP_SOCKET
from drivebay.registry.process import is_locked, try_lock

CONTROL_SOCKET = "machine.sock"
_LOCK = "machine.lock"


def qemu_pid(run_folder: str) -> int | None:
    """The number of the QEMU process that runs from this folder; None where there is none."""
    try:
        pid = int(Path(run_folder, PID_FILE).read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    # The number may be another process's by now: QEMU's arguments name its monitor's socket.
    monitor = os.path.join(run_folder, QMP_SOCKET).replace(",", ",,")
    return pid if os.fsencode(monitor) in arguments else None


class SupervisorLock:
    """Held by a machine's supervisor for as long as it lives, so that there is one only."""

    def __init__(self, run_folder: str) -> None:
        path = os.path.join(run_folder, _LOCK)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Take it; false where another process has it."""
        return try_lock(self._fd)

    def close(self) -> None:
        """Give it up; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def has_supervisor(run_folder: str) -> bool:
    """Whether a supervisor lives, be it still starting."""
    try:
        fd = os.open(os.path.join(run_folder, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return is_locked(fd)
    finally:
        os.close(fd)
