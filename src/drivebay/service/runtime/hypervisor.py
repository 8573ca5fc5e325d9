"""The QEMU process of a machine: started, or found running, and watched until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.qemu.arguments import QMP_SOCKET
from drivebay.qemu.monitor import Monitor, RefusedError

LOG_FILE = "qemu.log"

_POLL = 0.02
_LAST_WORDS = 2000

OnEvent = Callable[[dict[str, Any]], Awaitable[None]]


class Hypervisor:
    """A QEMU process and its monitor. It outlives whoever watches it.

    ``powered_off`` tells, once it has ended, whether it did so in order (by the guest, or by our command).
    """

    def __init__(self, run_folder: str, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.powered_off = False
        self._stopped_at = time.monotonic()
        self.ended = asyncio.Event()
        self._run_folder = run_folder
        self._process = process
        self._monitor: Monitor | None = None
        self._watch_end()

    @classmethod
    def start(cls, command: Sequence[str], run_folder: str) -> Hypervisor:
        """Start QEMU. Raises StorageError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(run_folder, QMP_SOCKET))
        log_path = os.path.join(run_folder, LOG_FILE)
        try:
            with open(log_path, "wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise from_os_error(error, "start QEMU", path=command[0]) from error
        return cls(run_folder, process.pid, process)

    @property
    def monitor(self) -> Monitor:
        """The monitor, once connected."""
        assert self._monitor is not None
        return self._monitor

    async def connect(self) -> None:
        """Connect to the monitor. Raises StorageError with QEMU's own words if it ends before."""
        path = os.path.join(self._run_folder, QMP_SOCKET)
        connecting = asyncio.ensure_future(Monitor.connect(path, timeout=60))
        ending = asyncio.ensure_future(self.ended.wait())
        await asyncio.wait({connecting, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not connecting.done():
            connecting.cancel()
            raise self.failure("QEMU does not start")
        self._monitor = connecting.result()

    async def follow(self, on_event: OnEvent) -> None:
        """Pass on all events until QEMU ends."""
        async for event in self.monitor.events():
            if event["event"] == "SHUTDOWN":
                self.powered_off = True
            elif event["event"] == "STOP":
                self._stopped_at = time.monotonic()
            await on_event(event)

    async def execute(self, command: str, **arguments: object) -> Any:
        """A command of the monitor; underscores in names are dashes."""
        return await self.monitor.execute(
            command, {name.replace("_", "-"): value for name, value in arguments.items()} or None
        )

    async def status(self) -> str:
        """QEMU's run state."""
        answer = await self.execute("query-status")
        return str(answer["status"])

    async def wait_while(self, *states: str) -> str:
        """Wait until the run state is none of these; the new one."""
        while (status := await self.status()) in states:
            await asyncio.sleep(_POLL)
        return status

    async def quit(self) -> None:
        """End it: in order where it answers, else by a signal."""
        if self._monitor is not None and not self.ended.is_set():
            with contextlib.suppress(StorageError, TimeoutError):
                async with asyncio.timeout(5):
                    await self.execute("quit")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.ended.wait()
        if not self.ended.is_set():
            self.powered_off = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await self.ended.wait()

    @property
    def seconds_stopped(self) -> float:
        """For how long the guest has been standing still, while it does."""
        return time.monotonic() - self._stopped_at

    async def close(self) -> None:
        """Hang up. QEMU goes on."""
        if self._monitor is not None:
            await self._monitor.close()

    def failure(self, what: str) -> StorageError:
        """An error with QEMU's own words."""
        path = os.path.join(self._run_folder, LOG_FILE)
        with contextlib.suppress(OSError):
            text = Path(path).read_text(errors="replace").strip()[-_LAST_WORDS:]
            if text:
                return StorageError(ErrorKind.STATE, f"{what}: {text}; mend that, then try again")
        return StorageError(ErrorKind.STATE, f"{what}, and does not say why; try again", path=path)

    def _watch_end(self) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.ended.set()
            return
        asyncio.get_running_loop().add_reader(fd, self._note_end, fd)

    def _note_end(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
        if self._process is not None:
            self._process.wait()
        self.ended.set()


async def try_execute(hypervisor: Hypervisor, command: str, **arguments: object) -> bool:
    """Execute a command that may have nothing to do; whether QEMU did it."""
    try:
        await hypervisor.execute(command, **arguments)
    except RefusedError:
        return False
    return True
