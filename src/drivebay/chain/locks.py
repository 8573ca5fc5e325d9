"""Locks on image files, which keep out a second writer: ours and QEMU's.

All are open-file-description locks (fcntl(2), F_OFD_SETLK): they end with the descriptor. Byte 0 is
ours: held exclusively for writing, shared for reading. The bytes from 100 on are QEMU's
(block/file-posix.c names them): a shared lock on 100 + n says "I do n", one on 200 + n says "nobody
else may do n"; n is 0 for reading, 1 for writing, 2 for writing what is there already, 3 for resizing.
Whoever has taken theirs then looks whether somebody holds the opposite.

Byte 1 is ours, too: shared by readers, exclusively held by whoever merges the image with a neighbour while
a running machine's worker serves it. The worker holds no lock there, for it is told of all that changes.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import struct

from drivebay.chain.holders import describe_holder
from drivebay.errors import ErrorKind, StorageError, from_os_error

_FLOCK = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid
_OURS = 0
_STEADY = 1
_DOES = 100
_FORBIDS = 200
_READ, _WRITE, _REWRITE, _RESIZE = range(4)


class LockMode(enum.Enum):
    """What whoever opened a file does, and lets others do."""

    NONE = "none"  # a look, which may find anything
    READ = "read"  # others may read
    SERVE = "serve"  # others may read, and one may merge the image who tells whoever serves it
    MERGE = "merge"  # only those who serve it may have it open
    WRITE = "write"  # others may do nothing
    SHARED = "shared"  # others may write, too, if they also say so; nobody changes the file's size


_DO = {
    LockMode.READ: (_READ,),
    LockMode.SERVE: (_READ,),
    LockMode.MERGE: (_READ,),
    LockMode.WRITE: (_READ, _WRITE, _REWRITE, _RESIZE),
    LockMode.SHARED: (_READ, _WRITE, _REWRITE),
}
_FORBID = {
    LockMode.READ: (_WRITE, _RESIZE),
    LockMode.SERVE: (_WRITE, _RESIZE),
    LockMode.MERGE: (_WRITE, _RESIZE),
    LockMode.WRITE: (_WRITE, _RESIZE),
    LockMode.SHARED: (_RESIZE,),
}


_KEEP_STEADY = {LockMode.READ: fcntl.F_RDLCK, LockMode.MERGE: fcntl.F_WRLCK}


def lock_file(fd: int, path: str, mode: LockMode, *, merging: bool = False) -> None:
    """Lock an opened file until ``fd`` is closed. Raises StorageError (IN_USE) that names the holder.

    With ``merging`` whoever is to serve the image was told to by whoever merges it.
    """
    if mode is LockMode.NONE:
        return
    does, forbids = _DO[mode], _FORBID[mode]
    try:
        _take(fd, path, _OURS, fcntl.F_WRLCK if mode is LockMode.WRITE else fcntl.F_RDLCK)
        for byte in [_DOES + n for n in does] + [_FORBIDS + n for n in forbids]:
            _take(fd, path, byte, fcntl.F_RDLCK)
        for byte in [_FORBIDS + n for n in does] + [_DOES + n for n in forbids]:
            _look(fd, path, byte, fcntl.F_WRLCK)
        if mode in _KEEP_STEADY:
            _take(fd, path, _STEADY, _KEEP_STEADY[mode])
        elif mode is LockMode.SERVE and not merging:
            _look(fd, path, _STEADY, fcntl.F_RDLCK)
    except OSError as error:
        raise from_os_error(error, "lock", path=path) from error


def keep_for_reading(fd: int, path: str) -> None:
    """Turn a lock for writing into one for reading: the file is written no more. Raises StorageError."""
    try:
        for number in (_WRITE, _REWRITE, _RESIZE):
            _release(fd, _DOES + number, 1)
        _take(fd, path, _OURS, fcntl.F_RDLCK)
    except OSError as error:
        raise from_os_error(error, "lock", path=path) from error


def unlock_file(fd: int) -> None:
    """Give up all locks that were taken through ``fd``. Raises OSError."""
    _release(fd, 0, 0)


def _release(fd: int, byte: int, count: int) -> None:
    """Give up locks on ``count`` bytes, 0 for all that follow."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, count, 0))


def _take(fd: int, path: str, byte: int, kind: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise _in_use(fd, path, byte) from error


def _look(fd: int, path: str, byte: int, kind: int) -> None:
    """Whether nobody else holds a lock that forbids one of this kind."""
    asked = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
    if _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK:
        raise _in_use(fd, path, byte)


def _in_use(fd: int, path: str, byte: int) -> StorageError:
    return StorageError(
        ErrorKind.IN_USE,
        f"the image is in use: {describe_holder(fd, byte)}; end it, or wait for it, then try again",
        path=path,
        operation="lock",
    )
