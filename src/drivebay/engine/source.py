"""One opened file of an image: the only place where the engine meets the operating system.

A source transfers exactly what it is asked to, or raises ``OSError``. Tests put recording and failing
sources in its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import errno
import functools
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivebay.blockmap import Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR

Buffer = bytes | bytearray | memoryview
TryRead = Callable[[Sequence[memoryview], int, int], int]
TryWrite = Callable[[memoryview, int], int]

#: The flags for `FileSource.try_read`.
AT_ONCE = os.RWF_NOWAIT

_ZEROS = bytes(1 << 20)
_KEEP_SIZE = 0x01  # linux/falloc.h
_PUNCH_HOLE = 0x02
_ZERO_RANGE = 0x10
_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _file_size(fd: int) -> int:
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        return os.lseek(fd, 0, os.SEEK_END)
    return os.fstat(fd).st_size


def _reads_at_once(fd: int) -> bool:
    """Whether the file system knows reads that do not wait."""
    try:
        os.preadv(fd, [bytearray(1)], 0, AT_ONCE)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


class FileSource:
    """Reads and writes one file through the host's page cache. Owns ``fd``; safe for many threads.

    ``size`` is the file's size in bytes as the engine knows it; up to the next multiple of ``padding``
    reads give zeros. ``try_read(views, offset, flags)``
    and ``try_write(view, offset)`` are single system calls for a serving loop: they may transfer less
    than asked. With AT_ONCE a read raises ``BlockingIOError`` rather than wait for the device, where
    ``reads_at_once`` says that the file system knows that; elsewhere the flags must be 0.
    """

    def __init__(self, fd: int, path: str, *, writable: bool) -> None:
        self.fd = fd
        self.path = path
        self.writable = writable
        self.size = _file_size(fd)
        self.padding = SECTOR
        self._growing = threading.Lock()
        self.reads_at_once = _reads_at_once(fd)
        self.try_read: TryRead = functools.partial(os.preadv, fd)
        self.try_write: TryWrite = functools.partial(os.pwrite, fd)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``; only the missing rest of a file's last sector (`padding`) reads as zeros."""
        done = 0
        while done < len(view):
            got = os.preadv(self.fd, [view[done:]], offset + done)
            if got == 0:
                self._zero_fill_tail(view, done, offset)
                return
            done += got

    def _zero_fill_tail(self, view: memoryview, done: int, offset: int) -> None:
        end = self.size + -self.size % self.padding
        if offset + done < self.size or offset + len(view) > end:
            raise StorageError(
                ErrorKind.IO,
                "the file ends here although it was longer when it was opened; "
                "something truncated it: restore it from a copy",
                path=self.path,
                offset=offset + done,
                operation="read",
            )
        view[done:] = bytes(len(view) - done)

    def write(self, data: Buffer, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        view = memoryview(data)
        self.extend(offset + len(view))
        while len(view):
            done = os.pwrite(self.fd, view, offset)
            view = view[done:]
            offset += done

    def zero_range(self, offset: int, length: int, *, punch: bool) -> None:
        """Make a range read as zeros; with ``punch`` its space may go back to the host."""
        mode = (_PUNCH_HOLE if punch else _ZERO_RANGE) | _KEEP_SIZE
        try:
            _fallocate(self.fd, mode, offset, length)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
            self._write_zeros(offset, length)

    def _write_zeros(self, offset: int, length: int) -> None:
        for start in range(offset, offset + length, len(_ZEROS)):
            self.write(memoryview(_ZEROS)[: min(len(_ZEROS), offset + length - start)], start)

    def extend(self, size: int) -> None:
        """Let the file reach to ``size``; the new part reads as zeros."""
        if size <= self.size:
            return
        with self._growing:
            if size > self.size:
                os.ftruncate(self.fd, size)
                self.size = size

    def shorten(self, size: int) -> None:
        """Let the file end at ``size``."""
        with self._growing:
            if size < self.size:
                os.ftruncate(self.fd, size)
                self.size = size

    def reserve(self, offset: int, length: int) -> None:
        """Take the host's space for a range now."""
        with self._growing:
            os.posix_fallocate(self.fd, offset, length)
            self.size = max(self.size, offset + length)

    def sync(self) -> None:
        """Make everything written so far, and the file's size, survive a power cut."""
        os.fdatasync(self.fd)

    def prefetch(self, offset: int, length: int) -> None:
        """Ask the host to read a range ahead."""
        with contextlib.suppress(OSError):
            os.posix_fadvise(self.fd, offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the file; its locks go with it."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class OpenedLayer:
    """A layer with its files: source number i of the layer is ``sources[i]``."""

    layer: Layer
    sources: tuple[FileSource, ...]
