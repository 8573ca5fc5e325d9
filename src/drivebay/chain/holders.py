"""Who holds a lock on a file.

The kernel does not tell the owner of an open-file-description lock (/proc/locks says process -1), but
it lists each descriptor's locks in /proc/PID/fdinfo (proc(5)).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

_PROC = "/proc"
_COMMAND_SHOWN = 120


class Holder(NamedTuple):
    """A process; ``since`` is when it started, in seconds since the epoch."""

    pid: int
    command: str
    since: float


def describe_holder(fd: int, byte: int) -> str:
    """A clause that names whoever, beside ``fd`` itself, holds a lock on ``byte`` of its file."""
    holder = find_holder(fd, byte)
    if holder is None:
        return (
            "a process that this user can't see holds its lock (another user's, another container's or "
            "another host's)"
        )
    since = datetime.fromtimestamp(holder.since).astimezone().isoformat(sep=" ", timespec="seconds")
    who = "this process" if holder.pid == os.getpid() else "process"
    host = os.uname().nodename
    return f"{who} {holder.pid} ({holder.command}) on host {host} holds its lock, since {since}"


def find_holder(fd: int, byte: int) -> Holder | None:
    """The first visible process with a lock on ``byte`` of the file behind ``fd``."""
    status = os.fstat(fd)
    inode = f":{status.st_ino}"
    for pid in _processes():
        for number in _descriptors(pid):
            if (pid, number) == (os.getpid(), fd) or not _has_lock(pid, number, inode, byte):
                continue
            if _is_same_file(pid, number, status):
                return _describe(pid)
    return None


def _processes() -> Iterator[int]:
    for name in os.listdir(_PROC):
        if name.isdigit():
            yield int(name)


def _descriptors(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(f"{_PROC}/{pid}/fdinfo")]
    return []


def _has_lock(pid: int, number: int, inode: str, byte: int) -> bool:
    for *_, place, first, last in _locks(pid, number):
        if place.endswith(inode) and int(first) <= byte and (last == "EOF" or byte <= int(last)):
            return True
    return False


def _locks(pid: int, number: int) -> list[list[str]]:
    # lock: 1: OFDLCK ADVISORY READ -1 fe:01:1234 100 100
    with contextlib.suppress(OSError), open(f"{_PROC}/{pid}/fdinfo/{number}") as file:
        return [line.split() for line in file if line.startswith("lock:") and "FLOCK" not in line]
    return []


def _is_same_file(pid: int, number: int, status: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(f"{_PROC}/{pid}/fd/{number}"), status)
    return False


def _describe(pid: int) -> Holder:
    command, since = "a process that has just ended", time.time()
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open(f"{_PROC}/{pid}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0").split(b"\0")
        command = _printable(b" ".join(words).decode("utf-8", "replace"))
        since = _boot_time() + _start_ticks(pid) / os.sysconf("SC_CLK_TCK")
    return Holder(pid, command, since)


def _printable(text: str) -> str:
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _COMMAND_SHOWN else text[: _COMMAND_SHOWN - 3] + "..."


def _start_ticks(pid: int) -> int:
    with open(f"{_PROC}/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _boot_time() -> int:
    with open(f"{_PROC}/stat") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("btime"))
