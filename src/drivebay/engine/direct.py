"""A source that goes past the host's page cache (O_DIRECT), through aligned buffers of its own."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Sequence

from drivebay.engine.source import Buffer, FileSource
from drivebay.errors import ErrorKind, StorageError

_BOUNCE = 1 << 20
_ALIGNMENTS = (512, 4096)


def _never_at_once(_views: Sequence[memoryview] | memoryview, _offset: int, _flags: int = 0) -> int:
    raise BlockingIOError(errno.EAGAIN, "unbuffered I/O always waits for the device")


class DirectSource(FileSource):
    """Turns O_DIRECT on for ``fd`` and keeps its alignment rules.

    What is not aligned is read, merged and written back under a lock, so callers need not care.
    Raises StorageError where the file system has no O_DIRECT.
    """

    def __init__(self, fd: int, path: str, *, writable: bool) -> None:
        super().__init__(fd, path, writable=writable)
        self.reads_at_once = True  # it says LATER to all of them
        self.try_read = _never_at_once
        self.try_write = _never_at_once
        self._edges = threading.RLock()
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
            self._align = self._find_alignment()
        except OSError as error:
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                "this file system does not do unbuffered I/O (O_DIRECT); choose another cache mode",
                path=path,
                operation="open",
            ) from error

    def _find_alignment(self) -> int:
        for alignment in _ALIGNMENTS[:-1]:
            try:
                with mmap.mmap(-1, mmap.PAGESIZE) as page:
                    os.preadv(self.fd, [memoryview(page)[:alignment]], alignment)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            except BufferError:
                pass
            else:
                return alignment
        return _ALIGNMENTS[-1]

    def read_into(self, view: memoryview, offset: int) -> None:
        """As `FileSource.read_into`."""
        done = 0
        while done < len(view):
            start = (offset + done) - (offset + done) % self._align
            skip = offset + done - start
            want = min(len(view) - done, _BOUNCE - skip)
            bounce, got = self._read_aligned(start, skip + want)
            have = min(max(got - skip, 0), want)
            if not have:
                self._zero_fill_tail(view, done, offset)
                return
            view[done : done + have] = bounce[skip : skip + have]
            done += have

    def _read_aligned(self, start: int, length: int) -> tuple[memoryview, int]:
        bounce = memoryview(mmap.mmap(-1, _BOUNCE))
        got = os.preadv(self.fd, [bounce[: length + -length % self._align]], start)
        return bounce, got

    def write(self, data: Buffer, offset: int) -> None:
        """As `FileSource.write`."""
        view = memoryview(data).cast("B")
        self.extend(offset + len(view))
        with self._edges:
            while len(view):
                skip = offset % self._align
                count = min(len(view), _BOUNCE - self._align - skip)
                self._write_aligned(view[:count], offset - skip, skip)
                view = view[count:]
                offset += count

    def _write_aligned(self, data: memoryview, start: int, skip: int) -> None:
        length = skip + len(data)
        whole = length + -length % self._align
        bounce = memoryview(mmap.mmap(-1, _BOUNCE))
        if skip:
            os.preadv(self.fd, [bounce[: self._align]], start)
        if whole != length:
            last = whole - self._align
            os.preadv(self.fd, [bounce[last:whole]], start + last)
        bounce[skip:length] = data
        self._write_all(bounce[:whole], start)
        with self._growing:
            if start + whole > self.size:
                os.ftruncate(self.fd, self.size)

    def zero_range(self, offset: int, length: int, *, punch: bool) -> None:
        """As `FileSource.zero_range`."""
        with self._edges:
            super().zero_range(offset, length, punch=punch)

    def _write_all(self, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done:], start + done)
            done -= done % self._align if done < len(view) else 0
