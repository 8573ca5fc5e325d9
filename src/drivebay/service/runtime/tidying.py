"""Merging what deleted snapshots left of a machine's images, by a process of its own beside the guest.

``python -m drivebay.service.runtime.tidying HOME MACHINE``; the supervisor ends it with the machine, at
whatever it is: merges are resumed (docs/internals/merging.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from uuid import UUID

from drivebay.errors import StorageError
from drivebay.machines import store
from drivebay.machines.document import media_of
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.service.merging import consolidate

_log = logging.getLogger(__name__)


class Tidying:
    """The process that tidies the images of one running machine, if there is anything to tidy."""

    def __init__(self, home: Home, machine: UUID) -> None:
        self._home = home
        self._machine = machine
        self._process: asyncio.subprocess.Process | None = None

    async def begin(self) -> None:
        """Start it. What goes wrong is logged: the machine runs without that."""
        try:
            if not await asyncio.to_thread(_has_leftovers, self._home, self._machine):
                return
            command = (sys.executable, "-m", __name__, self._home.folder, str(self._machine))
            self._process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        except (StorageError, OSError) as error:
            _log.warning("images are not tidied: %s", error)

    async def end(self) -> None:
        """End it now."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _has_leftovers(home: Home, uuid: UUID) -> bool:
    with open_registry(home) as registry, registry.view() as view:
        return any(medium.merging for medium in media_of(store.load(view, uuid), view.tree))


def main(folder: str, machine: str) -> int:
    """Tidy; the exit code."""
    try:
        done = consolidate(Home(folder), machine=UUID(machine))
    except StorageError as error:
        _log.warning("images are not tidied: %s", error)
        return error.exit_code
    for left in done.left:
        _log.info("left for later: %s", left.reason)
    return 0


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    sys.exit(main(sys.argv[1], sys.argv[2]))
