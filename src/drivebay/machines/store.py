"""Machines in the registry: their documents are the truth there, and the rows beside them an index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Table, delete, insert, or_, select, true

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import document as documents
from drivebay.machines.document import attachments_of, document_path, media_of
from drivebay.machines.model import Machine
from drivebay.registry import schema
from drivebay.registry.journal import Remove, Rename, WriteFile
from drivebay.registry.medium import Use

if TYPE_CHECKING:
    from drivebay.registry.database import Change, View

_ROWS = schema.machines.c


def load(view: View, name: str | UUID) -> Machine:
    """The machine with this name or UUID. Raises StorageError: NOT_FOUND; CORRUPT, STATE as its document."""
    wanted = str(name).strip("{}").lower()
    for machine in _machines(view.connection, or_(_ROWS.uuid == wanted, _ROWS.name == str(name))):
        return machine
    raise StorageError(
        ErrorKind.NOT_FOUND,
        f"there is no machine {str(name)[:100]!r}; drivebay machine list shows those there are",
        operation="look up a machine",
    )


def load_all(view: View) -> list[Machine]:
    """All machines, by name."""
    return list(_machines(view.connection, true()))


def machine_names(view: View) -> dict[UUID, str]:
    """The names of all machines, for messages."""
    return {UUID(row.uuid): row.name for row in view.connection.execute(select(_ROWS.uuid, _ROWS.name))}


def save(change: Change, machine: Machine) -> None:
    """Record a machine as it is now: its document, its index, its uses, and its file after the commit.

    Its media must be registered in this change before. A folder that isn't the one from before is renamed.
    Raises StorageError (IN_USE) if another machine has the name.
    """
    require_free_name(change.connection, machine)
    before = _row(change.connection, machine.uuid)
    old = documents.from_text(before.document, before.folder) if before else None
    text = documents.to_text(documents.to_document(machine, media_of(machine, change.tree), old))
    _forget(change.connection, machine.uuid)
    _record(change.connection, machine, text)
    change.set_uses(machine.uuid, _uses(machine))
    if before:
        _move_file(change, before, machine)
    change.after_commit(WriteFile(document_path(machine), text))


def _move_file(change: Change, before: Row[Any], machine: Machine) -> None:
    if (before.folder, before.name) != (machine.folder, machine.name):
        change.after_commit(Remove([os.path.join(before.folder, before.name + documents.EXTENSION)]))
    if before.folder != machine.folder:
        change.after_commit(Rename(before.folder, machine.folder))


def delete_machine(change: Change, machine: Machine) -> None:
    """Forget a machine; its file goes after the commit. Its media stay registered, used by no one."""
    _forget(change.connection, machine.uuid)
    change.set_uses(machine.uuid, ())
    change.after_commit(Remove([document_path(machine)]))


def refresh(change: Change, media: Iterable[UUID]) -> None:
    """Write the files of all machines that build on these media, which were changed, anew."""
    changed = set(media)
    for machine in load_all(change):
        if not changed.isdisjoint(medium.uuid for medium in media_of(machine, change.tree)):
            save(change, machine)


def _machines(connection: Connection, which: ColumnElement[bool]) -> Iterator[Machine]:
    query = select(_ROWS.folder, _ROWS.document).where(which).order_by(_ROWS.name)
    for folder, text in connection.execute(query).all():
        yield _read(text, folder)


def _read(text: str, folder: str) -> Machine:
    try:
        return documents.from_document(documents.from_text(text, folder), folder)[0]
    except StorageError as error:
        if error.kind is not ErrorKind.CORRUPT:
            raise
        what = error.message.split(";")[0]
        raise StorageError(
            ErrorKind.CORRUPT,
            f"what the registry holds of the machine in this folder is damaged ({what}); "
            "make the registry anew with: drivebay rebuild FOLDER... (the folders of images and machines)",
            path=folder,
            operation="read the registry",
        ) from error


def _row(connection: Connection, uuid: UUID) -> Row[Any] | None:
    return connection.execute(select(schema.machines).where(_ROWS.uuid == str(uuid))).first()


def require_free_name(connection: Connection, machine: Machine) -> None:
    """Raise StorageError (IN_USE) if another machine has the name."""
    query = select(_ROWS.uuid).where(_ROWS.name == machine.name, _ROWS.uuid != str(machine.uuid))
    if connection.execute(query).first():
        raise StorageError(
            ErrorKind.IN_USE,
            f"there is a machine called {machine.name!r} already; choose another name, or rename that one",
            operation="name a machine",
        )


def _forget(connection: Connection, uuid: UUID) -> None:
    connection.execute(delete(schema.machines).where(_ROWS.uuid == str(uuid)))
    connection.execute(delete(schema.snapshots).where(schema.snapshots.c.machine == str(uuid)))
    connection.execute(delete(schema.attachments).where(schema.attachments.c.machine == str(uuid)))


def _record(connection: Connection, machine: Machine, text: str) -> None:
    own = str(machine.uuid)
    row = {"uuid": own, "name": machine.name, "folder": machine.folder, "state": machine.state.value}
    snapshots = [
        {"uuid": str(one.uuid), "machine": own, "parent": _text(one.parent), "name": one.name}
        for one in machine.snapshots
    ]
    attachments = [
        {
            "machine": own,
            "snapshot": _text(snapshot),
            "slot": str(at.slot),
            "device": at.device.value,
            "medium": _text(at.medium),
        }
        for snapshot, at in attachments_of(machine)
    ]
    _insert(connection, schema.machines, [{**row, "document": text}])
    _insert(connection, schema.snapshots, snapshots)
    _insert(connection, schema.attachments, attachments)


def _insert(connection: Connection, table: Table, rows: list[dict[str, str | None]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _uses(machine: Machine) -> set[Use]:
    return {
        Use(at.medium, machine.uuid, snapshot)
        for snapshot, at in attachments_of(machine)
        if at.medium is not None
    }


def _text(uuid: UUID | None) -> str | None:
    return None if uuid is None else str(uuid)
