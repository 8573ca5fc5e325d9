"""A process that goes on after its command has returned."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from drivebay.errors import ErrorKind, StorageError

Ready = Callable[[Any], None]


def run_in_background(work: Callable[[Ready], None]) -> Any:
    """Run ``work`` in a new session, apart from any terminal, and wait until it calls its argument.

    What it calls it with (a JSON value) is the answer. Raises the StorageError that ``work`` raised
    before that. Must be called while the process has no other threads of Python.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _be_child(work, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        report = pipe.read()
    return _unpack(report)


def _be_child(work: Callable[[Ready], None], writer: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        work(lambda value: _report(writer, {"ready": value}))
        code = 0
    except StorageError as error:
        code = error.exit_code
        _report(
            writer, {"error": [error.kind.value, error.message, error.path, error.offset, error.operation]}
        )
    except OSError as error:
        _report(writer, {"error": [ErrorKind.IO.value, str(error), None, None, "start"]})
    finally:
        os._exit(code)


def _report(writer: int, value: object) -> None:
    """Tell the parent, and let go of everything that is its: the terminal, the folder, the pipe."""
    try:
        os.write(writer, json.dumps(value).encode())
    except OSError:  # the parent has been told before, or is gone: nobody is there to tell
        return
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2, writer):
        os.dup2(null, number)
    os.close(null)
    os.chdir("/")


def _unpack(report: bytes) -> Any:
    value = json.loads(report or "{}")
    if "ready" in value:
        return value["ready"]
    if "error" in value:
        kind, message, path, offset, operation = value["error"]
        raise StorageError(ErrorKind(kind), message, path=path, offset=offset, operation=operation)
    raise StorageError(
        ErrorKind.IO,
        "the background process ended before it was ready; run it in the foreground to see why",
        operation="start",
    )
