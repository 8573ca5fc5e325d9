"""Opening an image file without being led astray by what it may turn out to be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from drivebay.errors import ErrorKind, StorageError, from_os_error

# O_NONBLOCK: should the name become a FIFO between the look and the open, the open must not hang.
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_WHAT = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFLNK: "a symbolic link",
}


def open_file(path: str, *, writable: bool, follow: bool = True) -> int:
    """The descriptor of a regular file or block device; anything else is refused, never waited for.

    Without ``follow`` a symbolic link is refused, too. Raises StorageError: INVALID for what can't be an
    image, NOT_FOUND, READ_ONLY and so on otherwise.
    """
    flags = _FLAGS | (os.O_RDWR if writable else os.O_RDONLY) | (0 if follow else os.O_NOFOLLOW)
    try:
        _refuse_strange(os.stat(path, follow_symlinks=follow).st_mode, path)
        fd = os.open(path, flags)
    except OSError as error:
        raise from_os_error(error, "open for writing" if writable else "open", path=path) from error
    except ValueError as error:
        raise StorageError(
            ErrorKind.INVALID, f"this is no file name ({error}); name an image file", operation="open"
        ) from error
    try:
        _refuse_strange(os.fstat(fd).st_mode, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_strange(mode: int, path: str) -> None:
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return
    what = _WHAT.get(stat.S_IFMT(mode), "a special file")
    raise StorageError(
        ErrorKind.INVALID,
        f"this is {what}, not a disk image; name an image file or a block device",
        path=path,
        operation="open",
    )


class ImageFile:
    """What a format gets to see of an opened file (`drivebay.blockmap.Files`). Does not own ``fd``.

    ``beside`` opens the image's further files by the names that it records.
    """

    def __init__(self, fd: int, path: str, beside: Callable[[str], ImageFile], *, part: str = "") -> None:
        self.fd = fd
        self.path = path
        self.part = part
        self.beside = beside
        self.size = 0
        self.measure()

    def measure(self) -> None:
        """Find out the file's size, at first and after it changed. Raises StorageError."""
        try:
            self.size = os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            raise from_os_error(error, "measure", path=self.path) from error

    def read(self, offset: int, length: int) -> bytes:
        """As `Files.read`; what lies outside of the file costs no memory, however much is asked for."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        try:
            return self._read_all(offset, length)
        except OSError as error:
            raise from_os_error(error, "read", path=self.path, offset=offset) from error

    def _read_all(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0 and (piece := os.pread(self.fd, length, offset)):
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)
