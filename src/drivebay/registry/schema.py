"""The registry's tables, as queries use them. `migrations` makes them; a test holds the two equal.

UUIDs are text in their usual form, enums their values. ``document`` is the machine file's text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _value(
    name: str, kind: type[TypeEngine[Any]] = String, *, index: bool = False, unique: bool = False
) -> Column[Any]:
    """A column that has a value in each row."""
    return Column(name, kind, nullable=False, index=index, unique=unique)


def _table(name: str, *columns: Column[Any]) -> Table:
    return Table(name, metadata, *columns)


meta = _table(
    "meta",
    Column("name", String, primary_key=True),
    _value("value"),
)

media = _table(
    "media",
    Column("uuid", String, primary_key=True),
    _value("path", index=True),
    _value("format"),
    _value("device"),
    _value("type"),
    Column("parent", String, index=True),
    _value("size", Integer),
    _value("variant"),
    _value("auto_reset", Boolean),
    _value("merging", Boolean),
    _value("description", Text),
)

# Which medium belongs to which machine, or snapshot of one: what keeps media from being deleted.
uses = _table(
    "uses",
    _value("medium", index=True),
    _value("machine", index=True),
    Column("snapshot", String),
)

machines = _table(
    "machines",
    Column("uuid", String, primary_key=True),
    _value("name", unique=True),
    _value("folder"),
    _value("document", Text),
    _value("state"),
)

snapshots = _table(
    "snapshots",
    Column("uuid", String, primary_key=True),
    _value("machine", index=True),
    Column("parent", String),
    _value("name"),
)

# The current state's attachments have no snapshot.
attachments = _table(
    "attachments",
    _value("machine", index=True),
    Column("snapshot", String),
    _value("slot"),
    _value("device"),
    Column("medium", String, index=True),
)

jobs = _table(
    "jobs",
    Column("id", Integer, primary_key=True),
    _value("kind"),
    _value("payload", Text),
    _value("state"),
    _value("done", Integer),
    _value("total", Integer),
)

# Files that are being made (kind "intent", by the process ``owner``), and what is still to be done with
# files after a commit (any other kind; ``path`` is what it is done to).
journal = _table(
    "journal",
    Column("id", Integer, primary_key=True),
    _value("kind"),
    _value("owner"),
    _value("path"),
    _value("payload", Text),
)

trash = _table(
    "trash",
    Column("id", String, primary_key=True),
    _value("label"),
    _value("record", Text),
    _value("moves", Text),
    _value("deleted"),
)
