"""The tree of a machine's snapshots: walking it, and finding one by name or UUID (specification 6.1, 6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Machine, Snapshot

MAX_DEPTH = 250  # levels (specification, 6.1)


def path_to_root(machine: Machine, start: UUID | None = None) -> Iterator[Snapshot]:
    """The snapshots from ``start`` (by default the current one) to the root."""
    known = {snapshot.uuid: snapshot for snapshot in machine.snapshots}
    position = start or machine.current
    while position is not None:
        yield known[position]
        position = known[position].parent


def children(machine: Machine, parent: UUID | None) -> list[Snapshot]:
    """The snapshots directly under ``parent`` (without one: the root), the oldest first."""
    found = [snapshot for snapshot in machine.snapshots if snapshot.parent == parent]
    return sorted(found, key=lambda snapshot: snapshot.taken)


def subtree(machine: Machine, root: UUID) -> list[Snapshot]:
    """A snapshot and all that descend from it, parents before children."""
    found = [by_uuid(machine, root)]
    for snapshot in found:
        found.extend(children(machine, snapshot.uuid))
    return found


def by_uuid(machine: Machine, uuid: UUID) -> Snapshot:
    """The snapshot with this UUID. Raises StorageError (NOT_FOUND)."""
    for snapshot in machine.snapshots:
        if snapshot.uuid == uuid:
            return snapshot
    raise _unknown(machine, f"{{{uuid}}}")


def find_snapshot(machine: Machine, name: str) -> Snapshot:
    """The snapshot that ``name`` means: its UUID, or its name where only one has it.

    Raises StorageError: NOT_FOUND (E4), or INVALID with the UUIDs of all that have the name.
    """
    wanted = name.strip("{}").lower()
    for snapshot in machine.snapshots:
        if str(snapshot.uuid) == wanted:
            return snapshot
    named = [snapshot for snapshot in machine.snapshots if snapshot.name == name]
    if not named:
        raise _unknown(machine, repr(name[:80]))
    if len(named) > 1:
        listed = ", ".join(f"{one.uuid} ({one.taken:%Y-%m-%d %H:%M:%S})" for one in named)
        raise StorageError(
            ErrorKind.INVALID,
            f"{len(named)} snapshots of machine {machine.name!r} are called {name!r}; say which: {listed}",
            operation="look up a snapshot",
        )
    return named[0]


def _unknown(machine: Machine, what: str) -> StorageError:
    return StorageError(
        ErrorKind.NOT_FOUND,
        f"machine {machine.name!r} has no snapshot {what}; drivebay snapshot list shows those it has",
        operation="look up a snapshot",
    )
