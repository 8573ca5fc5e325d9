"""The trash: deleted files wait there, under a record of how to bring them back.

A file is only ever renamed, so the trash of a file system that home is not on lies beside the file.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from drivebay.errors import ErrorKind, StorageError
from drivebay.registry import schema
from drivebay.registry.home import Home
from drivebay.registry.journal import Rename, Trash

BESIDE = ".drivebay-trash"


@dataclass(frozen=True, slots=True)
class Discarded:
    """An entry of the trash; ``moves`` are pairs of where a file was and where it is now."""

    id: str
    label: str
    record: str
    moves: tuple[tuple[str, str], ...]
    deleted: datetime

    @property
    def folder(self) -> str:
        """The entry's own folder."""
        return os.path.dirname(self.moves[0][1]) if self.moves else ""

    @property
    def restoring(self) -> list[Rename]:
        """What brings the files back."""
        return [Rename(now, before) for before, now in self.moves]


def throw_away(connection: Connection, home: Home, effect: Trash) -> Sequence[Rename]:
    """Record an entry; what is to be renamed for it is the answer."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    paths = [path for path in effect.paths if os.path.lexists(path)]
    moves = [
        (path, os.path.join(_place(home, path), name, f"{number}-{os.path.basename(path)}"))
        for number, path in enumerate(paths)
    ]
    row = {
        "id": name,
        "label": effect.label,
        "record": effect.record,
        "moves": json.dumps(moves),
        "deleted": now.isoformat(),
    }
    connection.execute(insert(schema.trash).values(row))
    return [Rename(before, after) for before, after in moves]


def list_trash(connection: Connection) -> list[Discarded]:
    """All entries, the oldest first."""
    rows = connection.execute(select(schema.trash).order_by(schema.trash.c.deleted))
    return [_discarded(row) for row in rows]


def find_discarded(connection: Connection, name: str) -> Discarded:
    """The entry that ``name`` means: its id, its label, or a path that it held; of several the youngest.

    The name of a file is enough if all entries with it held the same path. Raises StorageError (NOT_FOUND).
    """
    path = os.path.abspath(name)
    entries = list_trash(connection)[::-1]
    for one in entries:
        if name in (one.id, one.label) or any(path == before for before, _ in one.moves):
            return one
    called = [(before, one) for one in entries for before, _ in one.moves if os.path.basename(before) == name]
    if len({before for before, _ in called}) == 1:
        return called[0][1]
    raise StorageError(
        ErrorKind.NOT_FOUND,
        f"nothing called {name[:200]!r} is in the trash; drivebay medium list --trash shows what is",
        operation="look into the trash",
    )


def forget_discarded(connection: Connection, entry: Discarded) -> None:
    """Take an entry off the list; its files are the caller's."""
    connection.execute(delete(schema.trash).where(schema.trash.c.id == entry.id))


def _place(home: Home, path: str) -> str:
    folder = os.path.dirname(path)
    same = os.lstat(path).st_dev == os.stat(home.folder).st_dev
    return home.trash if same else os.path.join(folder, BESIDE)


def _discarded(row: Row[Any]) -> Discarded:
    moves = tuple((before, now) for before, now in json.loads(row.moves))
    return Discarded(row.id, row.label, row.record, moves, datetime.fromisoformat(row.deleted))
