"""QEMU's monitor: commands, their answers, and events, over QMP on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from drivebay.errors import ErrorKind, StorageError

_LARGEST_ANSWER = 16 << 20  # a list of a few hundred block nodes
_OPERATION = "talk to QEMU"

# What qemu.qmp logs is told by the errors that it raises as well.
logging.getLogger("qemu.qmp").propagate = False


class RefusedError(StorageError):
    """QEMU's own refusal of a command; ``reason`` is its text."""

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(
            ErrorKind.STATE,
            f"QEMU refuses {command}: {reason.rstrip('.')}; drivebay machine status shows what it does",
            operation=_OPERATION,
        )
        self.command = command
        self.reason = reason


class Monitor:
    """A connection to a QEMU process; make it with `connect`, and close it.

    All methods raise StorageError: `RefusedError` where QEMU says no, STATE where it has gone.
    """

    def __init__(self, client: QMPClient) -> None:
        self._client = client
        self._all_events = EventListener()
        client.register_listener(self._all_events)

    @classmethod
    async def connect(cls, path: str, *, timeout: float = 30.0) -> Monitor:
        """Connect to the socket at ``path``, waiting up to ``timeout`` seconds for QEMU to make it."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            client = QMPClient("drivebay", readbuflen=_LARGEST_ANSWER)
            monitor = cls(client)  # before the first event can come
            try:
                await asyncio.wait_for(client.connect(path), timeout)
                return monitor
            except (QMPError, OSError, TimeoutError) as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise _gone(f"QEMU's monitor does not answer ({error})", path) from error
            await asyncio.sleep(0.02)

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What QEMU returns for ``command``."""
        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise RefusedError(command, str(error)) from error
        except QMPError as error:
            raise _gone(f"QEMU ended amid {command}") from error

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """All events since the connection was made, as they come, until it ends."""
        while True:
            ended = asyncio.ensure_future(self._ended())
            event = asyncio.ensure_future(self._all_events.get())
            try:
                await asyncio.wait({ended, event}, return_when=asyncio.FIRST_COMPLETED)
                if not event.done():
                    return
                yield cast("dict[str, Any]", dict(event.result()))
            finally:
                ended.cancel()
                event.cancel()

    async def _ended(self) -> None:
        while self._client.runstate.name == "RUNNING":
            await self._client.runstate_changed()

    async def give_file(self, name: str, descriptor: int) -> None:
        """Let QEMU have an open file, as ``fd:name`` in later commands. The caller's stays open."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise _gone("QEMU takes no file") from error
        await self.execute("getfd", {"fdname": name})

    async def close(self) -> None:
        """Hang up. QEMU goes on."""
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()


def _gone(what: str, path: str | os.PathLike[str] | None = None) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"{what}; drivebay machine status shows whether the machine still runs",
        path=path,
        operation=_OPERATION,
    )
