"""What may be called how. Names are keys: of machines, which are folders, too, and of things in them."""

from __future__ import annotations

from uuid import UUID

from drivebay.errors import ErrorKind, StorageError

_LONGEST = 100  # characters
_LONGEST_FILE = 200  # bytes: file systems allow 255, and extensions follow


def require_name(name: str, what: str) -> None:
    """Whether a controller, group or snapshot (``what``) may be called ``name``. StorageError (INVALID)."""
    if not name or name != name.strip() or not name.isprintable() or len(name) > _LONGEST:
        raise _invalid(
            name, what, f"give it 1 to {_LONGEST} printable characters, and no space at either end of them"
        )


def require_machine_name(name: str) -> None:
    """Whether a machine may be called ``name``, which becomes a file's name. StorageError (INVALID)."""
    require_name(name, "machine")
    if "/" in name or name.startswith((".", "-")) or len(name.encode()) > _LONGEST_FILE:
        raise _invalid(
            name,
            "machine",
            "its files are named after it: use no '/', no '.' or '-' in front, and fewer letters",
        )
    if _is_uuid(name):
        raise _invalid(name, "machine", "it would be taken for a UUID; choose another name")


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def _invalid(name: str, what: str, why: str) -> StorageError:
    return StorageError(
        ErrorKind.INVALID, f"a {what} can't be called {name[:60]!r}: {why}", operation=f"name a {what}"
    )
