"""One error type for everything that can go wrong, and the one table of what each kind means outside.

Every message ends with what to do next; path, offset and operation are kept apart from the text so
that ``--json`` and the exports can show them on their own.
"""

from __future__ import annotations

import enum
import errno
import os
from typing import NamedTuple


class ErrorKind(enum.Enum):
    """What went wrong, as far as a caller must tell cases apart."""

    IO = "io"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    CORRUPT = "corrupt"
    RANGE = "range"
    NOT_FOUND = "not-found"
    IN_USE = "in-use"
    READ_ONLY = "read-only"
    NO_SPACE = "no-space"
    STATE = "state"


class Meaning(NamedTuple):
    """How a kind is told outside: the exit code of a command and the ``errno`` an NBD client gets."""

    exit_code: int
    nbd_errno: int


# Exit code 1 is an answer ("differs", "findings"), 2 is a usage error: errors start at 3.
MEANINGS: dict[ErrorKind, Meaning] = {
    ErrorKind.INVALID: Meaning(2, errno.EINVAL),
    ErrorKind.IO: Meaning(3, errno.EIO),
    ErrorKind.NOT_FOUND: Meaning(4, errno.EIO),
    ErrorKind.CORRUPT: Meaning(5, errno.EIO),
    ErrorKind.UNSUPPORTED: Meaning(6, errno.ENOTSUP),
    ErrorKind.IN_USE: Meaning(7, errno.EBUSY),
    ErrorKind.READ_ONLY: Meaning(8, errno.EPERM),
    ErrorKind.NO_SPACE: Meaning(9, errno.ENOSPC),
    ErrorKind.RANGE: Meaning(10, errno.EINVAL),
    ErrorKind.STATE: Meaning(11, errno.EIO),
}

_KIND_OF_ERRNO: dict[int, ErrorKind] = {
    errno.ENOENT: ErrorKind.NOT_FOUND,
    errno.ENOTDIR: ErrorKind.NOT_FOUND,
    errno.EISDIR: ErrorKind.INVALID,
    errno.EEXIST: ErrorKind.INVALID,
    errno.ELOOP: ErrorKind.INVALID,
    errno.ENAMETOOLONG: ErrorKind.INVALID,
    errno.EACCES: ErrorKind.READ_ONLY,
    errno.EPERM: ErrorKind.READ_ONLY,
    errno.EROFS: ErrorKind.READ_ONLY,
    errno.ENOSPC: ErrorKind.NO_SPACE,
    errno.EDQUOT: ErrorKind.NO_SPACE,
    errno.EFBIG: ErrorKind.NO_SPACE,
    errno.EBUSY: ErrorKind.IN_USE,
    errno.EAGAIN: ErrorKind.IN_USE,
    errno.EOPNOTSUPP: ErrorKind.UNSUPPORTED,
}

_REMEDY: dict[ErrorKind, str] = {
    ErrorKind.NOT_FOUND: "check the path",
    ErrorKind.READ_ONLY: "check the permissions of the file and its folder",
    ErrorKind.NO_SPACE: "free space on the host, then try again",
    ErrorKind.IN_USE: "wait for the other user to finish",
}

_REMEDY_OF_ERRNO: dict[int, str] = {
    errno.EISDIR: "name an image file, not a folder",
    errno.EEXIST: "choose another name or remove the file first",
    errno.ELOOP: "it is a ring of symbolic links; name an image file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "make it smaller, or put it where files may be that large (file system, ulimit -f)",
    errno.EMFILE: "allow more open files (ulimit -n), or merge some images of the chain",
}


class StorageError(Exception):
    """The error that drivebay raises for every expected failure.

    ``path`` is the file, ``offset`` a byte offset in it (or on the virtual disk, as the message says),
    ``operation`` what was being done.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        offset: int | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.offset = offset
        self.operation = operation

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this error."""
        return MEANINGS[self.kind].exit_code

    @property
    def nbd_errno(self) -> int:
        """The ``errno`` value that an NBD client is sent for this error."""
        return MEANINGS[self.kind].nbd_errno

    def __str__(self) -> str:
        where = []
        if self.path is not None:
            where.append(self.path)
        if self.offset is not None:
            where.append(f"offset {self.offset}")
        prefix = ", ".join(where)
        return f"{prefix}: {self.message}" if prefix else self.message


def from_os_error(
    error: OSError,
    operation: str,
    *,
    path: str | os.PathLike[str] | None = None,
    offset: int | None = None,
) -> StorageError:
    """Turn an ``OSError`` of ``operation`` into the matching `StorageError`."""
    kind = _KIND_OF_ERRNO.get(error.errno or 0, ErrorKind.IO)
    reason = error.strerror or str(error) or type(error).__name__
    default = _REMEDY.get(kind, "look at the host's kernel log for the device")
    remedy = _REMEDY_OF_ERRNO.get(error.errno or 0, default)
    if kind is ErrorKind.READ_ONLY and operation == "open for writing":
        remedy += ", or open it read-only"
    return StorageError(
        kind,
        f"cannot {operation}: {reason}; {remedy}",
        path=path if path is not None else error.filename,
        offset=offset,
        operation=operation,
    )
