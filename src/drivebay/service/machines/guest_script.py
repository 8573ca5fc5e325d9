"""The script that a machine's tiny guest runs, read from the user's file."""

from __future__ import annotations

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.machines.settings import LONGEST_SCRIPT


def read_guest_script(path: str) -> str:
    """The text of a script, which goes into the machine's file. Raises StorageError."""
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST_SCRIPT + 1)
        return content.decode()
    except OSError as error:
        raise from_os_error(error, "read the guest's script", path=path) from error
    except UnicodeDecodeError as error:
        raise StorageError(
            ErrorKind.INVALID,
            f"this is no text ({error.reason} at byte {error.start}); name a shell script",
            path=path,
            operation="read the guest's script",
        ) from error
