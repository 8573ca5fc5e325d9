"""Processes that have files of the registry under way, and whether they still live.

Each holds a lock on a file of its own, which the kernel gives up with the process: process numbers are
used again, locks are not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from drivebay.chain.holders import describe_holder
from drivebay.errors import ErrorKind, StorageError, from_os_error

_FLOCK = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid
_FIRST_WAIT, _LONGEST_WAIT = 0.002, 0.05


def try_lock(fd: int) -> bool:
    """Lock the first byte of a file, until it is closed. Raises OSError."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def is_locked(fd: int) -> bool:
    """Whether somebody else holds what `try_lock` takes; a look, which is in nobody's way. Raises OSError."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


class Presence:
    """The sign that this process lives: a locked file. ``token`` is its name."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.token = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._path = os.path.join(folder, self.token)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try_lock(self._fd)

    def close(self) -> None:
        """What this process had under way is left to others."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._fd)


def is_alive(folder: str, token: str) -> bool:
    """Whether the process with this token lives; if not, its file is removed."""
    path = os.path.join(folder, os.path.basename(token))
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if not try_lock(fd):
            return True
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return False
    finally:
        os.close(fd)


class ChangeLock:
    """Held by the one thread that changes the registry, from before its commit to its last effect."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Wait for the lock at most ``timeout`` seconds. Raises StorageError (IN_USE), naming its holder."""
        if self._owner == threading.get_ident():
            raise RuntimeError("changes of a registry do not nest")
        deadline = time.monotonic() + timeout
        if not self._thread.acquire(timeout=timeout):
            raise self._busy("another thread of this process changes it")
        try:
            fd = self._lock_file(deadline)
            try:
                self._owner = threading.get_ident()
                yield
            finally:
                self._owner = None
                os.close(fd)
        finally:
            self._thread.release()

    def _lock_file(self, deadline: float) -> int:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os_error(error, "lock the registry", path=self._path) from error
        try:
            self._wait(fd, deadline)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _wait(self, fd: int, deadline: float) -> None:
        pause = _FIRST_WAIT
        while not try_lock(fd):
            if time.monotonic() >= deadline:
                raise self._busy(describe_holder(fd, 0))
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_WAIT)

    def _busy(self, who: str) -> StorageError:
        return StorageError(
            ErrorKind.IN_USE,
            f"somebody else changes the registry: {who}; wait for it, then try again",
            path=self._path,
            operation="change the registry",
        )
