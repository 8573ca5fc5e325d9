"""The registry's tables, as queries use them. `migrations` makes them; a test holds the two equal.

UUIDs are text in their usual form, enums their values. ``document`` is the machine file's text.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table, Text

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

media = Table(
    "media",
    metadata,
    Column("uuid", String, primary_key=True),
    Column("path", String, nullable=False, index=True),
    Column("format", String, nullable=False),
    Column("device", String, nullable=False),
    Column("type", String, nullable=False),
    Column("parent", String, index=True),
    Column("size", Integer, nullable=False),
    Column("variant", String, nullable=False),
    Column("auto_reset", Boolean, nullable=False),
    Column("merging", Boolean, nullable=False),
    Column("description", Text, nullable=False),
)

# Which medium belongs to which machine, or snapshot of one: what keeps media from being deleted.
uses = Table(
    "uses",
    metadata,
    Column("medium", String, nullable=False, index=True),
    Column("machine", String, nullable=False, index=True),
    Column("snapshot", String),
)

machines = Table(
    "machines",
    metadata,
    Column("uuid", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("folder", String, nullable=False),
    Column("document", Text, nullable=False),
    Column("state", String, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("uuid", String, primary_key=True),
    Column("machine", String, nullable=False, index=True),
    Column("parent", String),
    Column("name", String, nullable=False),
)

# The current state's attachments have no snapshot.
attachments = Table(
    "attachments",
    metadata,
    Column("machine", String, nullable=False, index=True),
    Column("snapshot", String),
    Column("slot", String, nullable=False),
    Column("device", String, nullable=False),
    Column("medium", String, index=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
)

# Files that are being made (kind "intent", by the process ``owner``), and what is still to be done with
# files after a commit (any other kind; ``path`` is what it is done to).
journal = Table(
    "journal",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("path", String, nullable=False),
    Column("payload", Text, nullable=False),
)

trash = Table(
    "trash",
    metadata,
    Column("id", String, primary_key=True),
    Column("label", String, nullable=False),
    Column("record", Text, nullable=False),
    Column("moves", Text, nullable=False),
    Column("deleted", String, nullable=False),
)
