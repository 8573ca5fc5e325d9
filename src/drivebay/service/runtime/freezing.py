"""The guest's file systems, frozen by its agent for a moment, and thawed again whatever happens.

A guest that stays frozen hangs for good: a freeze ends with the client that asked for it, and a supervisor
that takes over from a dead one ends what that one had begun.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.runtime.agent import ask_agent

_log = logging.getLogger(__name__)

_MARK = "frozen"  # a file in the run folder, from before the agent is asked until it has thawed
_AGAIN = 1.0  # seconds between attempts to thaw
_PATIENCE = 600.0  # seconds: a guest that has been reset without an agent is not frozen any more


class Freezing:
    """At most one client has the guest's file systems frozen."""

    def __init__(self, run_folder: str) -> None:
        self._run_folder = run_folder
        self._mark = Path(run_folder, _MARK)
        self._owner: int | None = None
        self._thawing: asyncio.Task[None] | None = None

    async def freeze(self, client: int) -> int:
        """Flush and freeze; how many file systems. Raises StorageError: then nothing stays frozen."""
        if self._owner is not None or self._thawing is not None:
            raise StorageError(
                ErrorKind.IN_USE,
                "the guest's file systems are frozen for somebody else at this moment; try again later",
                operation="freeze the guest",
            )
        self._owner = client
        await asyncio.to_thread(self._mark.touch)
        try:
            return _count(await ask_agent(self._run_folder, "guest-fsfreeze-freeze"))
        except StorageError as error:
            self._owner = None
            if error.kind is ErrorKind.UNSUPPORTED:  # it has not been asked
                await self._forget()
            else:  # it may do it yet
                self.thaw_surely()
            raise

    async def thaw(self) -> int:
        """Undo `freeze`; how many file systems. Raises StorageError: then it goes on being tried."""
        self._owner = None
        try:
            count = _count(await ask_agent(self._run_folder, "guest-fsfreeze-thaw"))
        except StorageError:
            self.thaw_surely()
            raise
        await self._forget()
        return count

    def client_gone(self, client: int) -> None:
        """Nobody else would thaw what this client had frozen."""
        if self._owner == client:
            _log.warning("whoever had the guest's file systems frozen is gone: they are thawed")
            self._owner = None
            self.thaw_surely()

    def take_over(self) -> None:
        """Thaw what a supervisor that died had frozen."""
        if self._mark.exists():
            self.thaw_surely()

    def thaw_surely(self) -> None:
        """Thaw in the background, again and again until the agent has done it."""
        if self._thawing is None:
            self._thawing = asyncio.ensure_future(self._thaw_surely())

    async def close(self) -> None:
        """The machine is off, or is just being started: nothing is frozen."""
        if self._thawing is not None:
            self._thawing.cancel()
            await asyncio.gather(self._thawing, return_exceptions=True)
            self._thawing = None
        await self._forget()

    async def _thaw_surely(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                while not await self._thaws():
                    await asyncio.sleep(_AGAIN)
        except TimeoutError:
            _log.error("the guest agent has not thawed the file systems in %.0f s: given up", _PATIENCE)
        await self._forget()
        self._thawing = None

    async def _thaws(self) -> bool:
        try:
            await ask_agent(self._run_folder, "guest-fsfreeze-thaw")
        except StorageError as error:
            _log.warning("the guest's file systems are not thawed yet: %s", error)
            return False
        return True

    async def _forget(self) -> None:
        await asyncio.to_thread(self._mark.unlink, missing_ok=True)


def _count(answer: object) -> int:
    return answer if isinstance(answer, int) else 0
