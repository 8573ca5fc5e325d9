"""Killing a process at every one of its calls that change files or a database, one after the other."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
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


def kill_everywhere(scenario: Callable[[], object], prepare: Callable[[], None]) -> Iterator[int]:
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


def _run(scenario: Callable[[], object], killer: _Killer) -> None:
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


def check_old_or_new(
    folder: str, kept: Path, look: Callable[[], object], change: Callable[[], object]
) -> None:
    """A change of ``folder``, killed anywhere, leaves the old or the new; ``kept`` is for a copy."""
    shutil.copytree(folder, kept)
    old = look()

    def prepare() -> None:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)

    states = [look() for _ in kill_everywhere(change, prepare)]
    assert len(states) > 20
    assert states[0] == old
    assert states[-1] != old
    assert all(state in (old, states[-1]) for state in states)
    assert sum(before != after for before, after in itertools.pairwise(states)) == 1
