"""Killing a process at every one of its calls that change files or a database, one after the other."""

from __future__ import annotations

import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

KILLED, DONE, FAILED = 9, 0, 3
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "open"}
_SYSCALLS = ("fsync", "fdatasync", "write", "pwrite", "pwritev", "ftruncate", "posix_fallocate", "close")


class _Killer:
    """Counts calls, and ends the process, as kill -9 does, before the call with a certain number."""

    def __init__(self, at: int) -> None:
        self.left = at

    def count(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(KILLED)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & 3)
        if event in _CHANGES and writes:
            self.count()


def kill_everywhere(scenario: Callable[[], None], prepare: Callable[[], None]) -> Iterator[int]:
    """Run ``scenario`` in child processes, each killed one call later than the last; after each of them
    the caller looks at what is left. ``prepare`` makes the start anew. Ends once a child comes through."""
    at = 0
    while True:
        at += 1
        prepare()
        child = os.fork()
        if child == 0:
            _run(scenario, _Killer(at))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (KILLED, DONE), f"call {at}: the child ended with {code}"
        yield at
        if code == DONE:
            return


def _run(scenario: Callable[[], None], killer: _Killer) -> None:
    code = FAILED
    try:
        for name in _SYSCALLS:
            setattr(os, name, _counted(killer, getattr(os, name)))
        sqlite3.connect = _connect(killer, sqlite3.connect)  # type: ignore[assignment]
        sys.addaudithook(killer.audit)
        scenario()
        code = DONE
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _counted(killer: _Killer, call: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **more: Any) -> Any:
        killer.count()
        return call(*arguments, **more)

    return counted


def _connect(killer: _Killer, connect: Callable[..., Any]) -> Callable[..., Any]:
    def traced(*arguments: Any, **more: Any) -> Any:
        connection = connect(*arguments, **more)
        connection.set_trace_callback(killer.count)  # before each statement, BEGIN and COMMIT included
        return connection

    return traced
