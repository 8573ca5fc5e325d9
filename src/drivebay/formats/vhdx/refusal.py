"""How a VHDX image is refused: what is wrong, where, and what to do next."""

from __future__ import annotations

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError

_REMEDIES = {
    ErrorKind.CORRUPT: "the image is damaged: restore it from a copy",
    ErrorKind.UNSUPPORTED: "convert the image with the tool that wrote it",
}


def refusal(files: Files, kind: ErrorKind, offset: int, what: str) -> StorageError:
    """The error for an image that can't be opened; ``offset`` is in its file."""
    return StorageError(kind, f"{what}; {_REMEDIES[kind]}", path=files.path, offset=offset, operation="open")


def require(holds: bool, files: Files, offset: int, what: str) -> None:
    """Raise StorageError (CORRUPT) unless a rule holds."""
    if not holds:
        raise refusal(files, ErrorKind.CORRUPT, offset, what)


def require_known(holds: bool, files: Files, offset: int, what: str) -> None:
    """Raise StorageError (UNSUPPORTED) for what drivebay doesn't know."""
    if not holds:
        raise refusal(files, ErrorKind.UNSUPPORTED, offset, what)
