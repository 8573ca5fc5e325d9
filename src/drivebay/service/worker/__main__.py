"""The worker process: ``python -m drivebay.service.worker FOLDER``, started by `start_worker`.

It reads from its standard input what to serve, and reports on its standard output, one line, that it
serves or why it can't. Then it goes on until it gets SIGTERM or is told to quit.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack

from drivebay.errors import ErrorKind, StorageError
from drivebay.exports import NbdServer
from drivebay.service.ending import Ending
from drivebay.service.worker import spec
from drivebay.service.worker.commands import Commands
from drivebay.service.worker.control import ControlServer
from drivebay.service.worker.messages import Message, decode, encode, error_to_json
from drivebay.service.worker.slots import Slots

_log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 512


def main(run_folder: str) -> int:
    """Serve until told to end; the exit code."""
    ending = Ending(signal.SIGTERM, signal.SIGINT)
    try:
        with ExitStack() as stack:
            _begin(run_folder, decode(sys.stdin.buffer.read()), stack, ending)
            _report({"ok": {}})
            ending.wait()
    except StorageError as error:
        _log.error("%s", error)
        _report({"error": error_to_json(error)})
        return error.exit_code
    except OSError as error:
        _log.exception("the worker failed")
        _report({"error": error_to_json(StorageError(ErrorKind.IO, f"the worker failed: {error}"))})
        return 3
    return 0


def _begin(run_folder: str, task: Message, stack: ExitStack, ending: Ending) -> None:
    """Open the disks and serve them; ``stack`` ends that: commands first, then requests, then files."""
    disks = [spec.spec_from_json(each) for each in spec.items(task.get("disks"))]
    server = NbdServer({}, max_connections=_MAX_CONNECTIONS)
    slots = Slots(server)
    stack.callback(slots.close_all)
    for group, limit in spec.mapping(task.get("groups", {}), spec.limit).items():
        slots.limit(group, limit)
    for disk in disks:
        slots.open(disk)
    server.listen_unix(os.path.join(run_folder, spec.NBD_SOCKET))
    stack.enter_context(server.in_thread(ending.begin))
    control = ControlServer(
        os.path.join(run_folder, spec.CONTROL_SOCKET), lambda: Commands(slots, ending.begin)
    )
    stack.callback(control.close)
    stack.callback(slots.end)


def _report(message: Message) -> None:
    """Tell whoever started this process, unless it was told before, and let go of its pipes."""
    if sys.stdout.closed:
        return
    try:
        os.write(sys.stdout.fileno(), encode(message))
    except OSError:  # nobody is there to be told
        _log.warning("whoever started this worker is gone")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    sys.stdout.close()


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    sys.exit(main(sys.argv[1]))
