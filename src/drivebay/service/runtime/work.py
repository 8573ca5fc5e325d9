"""The worker of a machine, as its supervisor sees it: started, watched, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.runtime.plan import RunPlan
from drivebay.service.worker import CONTROL_SOCKET, WorkerClient, WorkerProcess, start_worker

_RESULT = TypeVar("_RESULT")
_PEER = struct.Struct("iii")  # process, user, group: unix(7)
_RETRY = 5.0  # seconds between attempts to start a worker again
_PATIENCE = 10.0  # seconds for whoever has the images in use to notice that the worker has ended
_PAUSE = 0.1


class Work:
    """The worker's process. ``trouble`` says why there is none, when there should be one."""

    def __init__(self, run_folder: str) -> None:
        self.trouble = ""
        self.restarts = 0
        self.pid: int | None = None
        self._run_folder = run_folder
        self._process: WorkerProcess | None = None
        self._wanted = False
        self._again = asyncio.Event()
        self._restarting = asyncio.Lock()

    async def start(self, plan: RunPlan, groups: Mapping[str, int]) -> None:
        """Start a worker. Raises its StorageError."""
        await self._end_orphan()
        self._process = await asyncio.to_thread(start_worker, self._run_folder, plan.specs, dict(groups))
        self._wanted = True

    async def adopt(self) -> bool:
        """Take over a worker that runs already; whether there is one."""
        self._wanted = True
        return await self._connection_ends(wait=False)

    async def ask(self, question: Callable[[WorkerClient], _RESULT]) -> _RESULT:
        """Ask the worker, in a thread."""

        def work() -> _RESULT:
            with WorkerClient.connect(self._run_folder) as client:
                return question(client)

        return await asyncio.to_thread(work)

    async def watch(
        self, restart: Callable[[], Awaitable[None]], on_trouble: Callable[[], Awaitable[None]]
    ) -> None:
        """Start the worker anew whenever it ends; ``on_trouble`` is called when that does not work."""
        while True:
            await self._connection_ends(wait=True)
            if not self._wanted:
                return
            try:
                async with self._restarting:
                    await self._once_not_in_use(restart)
                self.trouble = ""
            except StorageError as error:
                self.trouble = str(error)
                await on_trouble()
                await self._wait_for_retry()

    def retry(self) -> None:
        """Try again now."""
        self._again.set()

    async def stop(self) -> None:
        """Have it flush and close everything, and end."""
        self._wanted = False
        async with self._restarting:  # what is being started is ended, too
            self._wanted = False
            process, self._process = self._process, None
        if process is not None and process.poll() is None:
            await asyncio.to_thread(process.stop)
        else:
            await self._end_orphan()

    async def _end_orphan(self) -> None:
        """A worker that somebody else started ends as well; its files are locked until it has."""
        if await self._connection_ends(wait=False):
            with contextlib.suppress(StorageError):
                await self.ask(lambda client: client.quit())
            await self._connection_ends(wait=True)

    async def _connection_ends(self, *, wait: bool) -> bool:
        """Whether a worker is there; with ``wait`` not before it has ended."""
        try:
            reader, writer = await asyncio.open_unix_connection(
                os.path.join(self._run_folder, CONTROL_SOCKET)
            )
        except OSError:
            return False
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        self.pid = _PEER.unpack(peer)[0]
        try:
            while wait and await reader.read(1 << 10):
                pass
        except OSError:
            pass
        finally:
            writer.close()
        return True

    async def _once_not_in_use(self, restart: Callable[[], Awaitable[None]]) -> None:
        """A merge that the worker's end has interrupted still holds the images for a moment."""
        deadline = time.monotonic() + _PATIENCE
        while self._wanted:
            try:
                await restart()
                self.restarts += 1
                return
            except StorageError as error:
                if error.kind is not ErrorKind.IN_USE or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_PAUSE)

    async def _wait_for_retry(self) -> None:
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY):
                await self._again.wait()
