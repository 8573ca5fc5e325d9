"""Who uses a file right now, seen from outside: the locks of `drivebay.chain.locks`, without taking any."""

from __future__ import annotations

import enum
import fcntl
import os
import struct
from typing import NamedTuple

from drivebay.chain.files import open_file
from drivebay.chain.holders import describe_holder

_FLOCK = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid
_OURS, _QEMU_READS, _QEMU_WRITES = 0, 100, 101


class LockState(enum.Enum):
    """How a file is held by somebody."""

    FREE = "free"
    READ = "read"
    WRITE = "write"


class Lock(NamedTuple):
    """``holder`` is a clause that names who holds it, empty for a free file."""

    state: LockState
    holder: str = ""


def lock_state(path: str) -> Lock:
    """Whether, how and by whom the file at ``path`` is locked; locks of this process count, too.

    Raises StorageError where it can't be opened for reading.
    """
    fd = open_file(path, writable=False)
    try:
        ours = _held(fd, _OURS)
        if ours == fcntl.F_WRLCK or _held(fd, _QEMU_WRITES) is not None:
            return Lock(LockState.WRITE, describe_holder(fd, _OURS if ours is not None else _QEMU_WRITES))
        if ours == fcntl.F_RDLCK or _held(fd, _QEMU_READS) is not None:
            return Lock(LockState.READ, describe_holder(fd, _OURS if ours is not None else _QEMU_READS))
        return Lock(LockState.FREE)
    finally:
        os.close(fd)


def _held(fd: int, byte: int) -> int | None:
    """The kind of the lock that somebody else holds on ``byte``."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return None if kind == fcntl.F_UNLCK else kind
