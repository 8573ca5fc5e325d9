"""The names of snapshots: what they may be, and how one that is taken already is made unique (6.3)."""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Machine

_MAX_LENGTH = 255


class UniqueName(enum.Enum):
    """What is put behind a name that another snapshot has already."""

    NO = "no"  # nothing: names need not be unique
    NUMBER = "number"
    TIME = "time"


def check_name(name: str) -> None:
    """Raises StorageError (INVALID) for what can't be a snapshot's name."""
    if not name.strip() or len(name) > _MAX_LENGTH or not name.isprintable():
        raise _invalid(f"a snapshot's name has 1 to {_MAX_LENGTH} printable characters; give it another")
    if _is_uuid(name):
        raise _invalid("a UUID is no name for a snapshot, as UUIDs name snapshots too; give it another")


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def unique_name(machine: Machine, name: str, how: UniqueName, now: datetime) -> str:
    """``name``, or where a snapshot of the machine has it, that with a number or the time behind it."""
    taken = {snapshot.name for snapshot in machine.snapshots}
    if how is UniqueName.NO or name not in taken:
        return name
    chosen = name = f"{name} {now:%Y-%m-%dT%H-%M-%S}" if how is UniqueName.TIME else name
    number = 2
    while chosen in taken:
        chosen = f"{name} {number}"
        number += 1
    return chosen


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="snapshot")
