"""The steps from one version of the registry's tables to the next. A step that was released never changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from drivebay.errors import ErrorKind, StorageError

Step = Callable[[Connection], None]

_FIRST_TABLES = (
    "CREATE TABLE meta (name VARCHAR NOT NULL PRIMARY KEY, value VARCHAR NOT NULL)",
    "CREATE TABLE media (uuid VARCHAR NOT NULL PRIMARY KEY, path VARCHAR NOT NULL, format VARCHAR NOT NULL, "
    "device VARCHAR NOT NULL, type VARCHAR NOT NULL, parent VARCHAR, size INTEGER NOT NULL, "
    "variant VARCHAR NOT NULL, auto_reset BOOLEAN NOT NULL, merging BOOLEAN NOT NULL, "
    "description TEXT NOT NULL)",
    "CREATE INDEX ix_media_path ON media (path)",
    "CREATE INDEX ix_media_parent ON media (parent)",
    "CREATE TABLE uses (medium VARCHAR NOT NULL, machine VARCHAR NOT NULL, snapshot VARCHAR)",
    "CREATE INDEX ix_uses_medium ON uses (medium)",
    "CREATE INDEX ix_uses_machine ON uses (machine)",
    "CREATE TABLE machines (uuid VARCHAR NOT NULL PRIMARY KEY, name VARCHAR NOT NULL UNIQUE, "
    "folder VARCHAR NOT NULL, document TEXT NOT NULL, state VARCHAR NOT NULL)",
    "CREATE TABLE snapshots (uuid VARCHAR NOT NULL PRIMARY KEY, machine VARCHAR NOT NULL, parent VARCHAR, "
    "name VARCHAR NOT NULL)",
    "CREATE INDEX ix_snapshots_machine ON snapshots (machine)",
    "CREATE TABLE attachments (machine VARCHAR NOT NULL, snapshot VARCHAR, slot VARCHAR NOT NULL, "
    "device VARCHAR NOT NULL, medium VARCHAR)",
    "CREATE INDEX ix_attachments_machine ON attachments (machine)",
    "CREATE INDEX ix_attachments_medium ON attachments (medium)",
    "CREATE TABLE jobs (id INTEGER NOT NULL PRIMARY KEY, kind VARCHAR NOT NULL, payload TEXT NOT NULL, "
    "state VARCHAR NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL)",
    "CREATE TABLE journal (id INTEGER NOT NULL PRIMARY KEY, kind VARCHAR NOT NULL, owner VARCHAR NOT NULL, "
    "path VARCHAR NOT NULL, payload TEXT NOT NULL)",
    "CREATE TABLE trash (id VARCHAR NOT NULL PRIMARY KEY, label VARCHAR NOT NULL, record TEXT NOT NULL, "
    "moves TEXT NOT NULL, deleted VARCHAR NOT NULL)",
)


def _make_tables(connection: Connection) -> None:
    for statement in _FIRST_TABLES:
        connection.exec_driver_sql(statement)


#: Step n leads from version n to n + 1; an empty file has version 0.
STEPS: Sequence[Step] = (_make_tables,)


def is_current(connection: Connection, path: str) -> bool:
    """Whether nothing is to be done. Raises StorageError (STATE) for a newer drivebay's registry."""
    found = _version(connection)
    if found > len(STEPS):
        raise StorageError(
            ErrorKind.STATE,
            f"this registry was made by a newer drivebay (version {found}; this one knows {len(STEPS)}): "
            "nothing was changed. Install that drivebay again, or use another home: --home FOLDER",
            path=path,
            operation="open the registry",
        )
    return found == len(STEPS)


def migrate(connection: Connection, path: str) -> None:
    """Bring the tables to this version, within the caller's transaction. Raises as `is_current`."""
    if is_current(connection, path):
        return
    for step in STEPS[_version(connection) :]:
        step(connection)
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO meta (name, value) VALUES ('version', ?)", (str(len(STEPS)),)
    )


def _version(connection: Connection) -> int:
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    if "meta" not in tables:
        return 0
    version = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'version'").scalar()
    return int(version or 0)
