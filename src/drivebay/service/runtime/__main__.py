"""The supervisor process: ``python -m drivebay.service.runtime HOME MACHINE OPTIONS``, started by `launch`.

It reports on its standard output, one line, that the machine runs or why it can't; then it goes on until
the machine has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.registry.home import Home
from drivebay.service.runtime.supervisor import Supervisor
from drivebay.service.worker.messages import Message, encode, error_to_json

_log = logging.getLogger("drivebay.supervisor")


def main(folder: str, machine: str, options: str) -> int:
    """Supervise until the machine has ended; the exit code."""
    starter = Starter()
    try:
        supervisor = Supervisor(Home(folder), UUID(machine), json.loads(options))
        asyncio.run(supervisor.run(lambda facts: starter.tell({"ok": facts})))
        return 0
    except StorageError as error:
        failure = error
    except OSError as error:
        failure = from_os_error(error, "run the machine")
    except Exception as error:
        _log.exception("the supervisor failed")
        failure = StorageError(ErrorKind.STATE, f"internal error ({error}); please report it")
    _log.error("%s", failure)
    starter.tell({"error": error_to_json(failure)})
    return failure.exit_code


class Starter:
    """Whoever started this supervisor: told once how that went, and let go."""

    def __init__(self) -> None:
        self._told = False

    def tell(self, message: Message) -> None:
        """Report, unless that was done."""
        if self._told:
            return
        self._told = True
        with contextlib.suppress(BrokenPipeError):
            os.write(1, encode(message))
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)


if __name__ == "__main__":
    if os.fork():  # so that the starter can wait for its child, and the supervisor is nobody's
        os._exit(0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    code = main(*sys.argv[1:4])
    logging.shutdown()
    os._exit(code)  # threads that wait for a worker's answer must not hold it up
