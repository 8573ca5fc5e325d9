"""SQLite through SQLAlchemy: how connections are made, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from drivebay.errors import ErrorKind, StorageError

_IMMEDIATE = "drivebay_immediate"


def make_engine(path: str, *, durable: bool, timeout: float) -> Engine:
    """An engine on the file at ``path``, in WAL mode; ``timeout`` is how many seconds to wait for others."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(path, durable=durable, timeout=timeout),
        poolclass=QueuePool,
    )
    event.listen(engine, "begin", _begin)
    return engine


def _connect(path: str, *, durable: bool, timeout: float) -> sqlite3.Connection:
    # Without an isolation level the driver begins no transactions of its own: _begin does.
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    return connection


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_IMMEDIATE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def transaction(engine: Engine, *, immediate: bool = False) -> Iterator[Connection]:
    """One transaction: committed on leaving, rolled back on an exception."""
    with engine.connect().execution_options(**{_IMMEDIATE: immediate}) as connection, connection.begin():
        yield connection


@contextmanager
def reported(path: str, operation: str) -> Iterator[None]:
    """SQLite's errors become StorageErrors that say what to do."""
    try:
        yield
    except DBAPIError as error:
        raise _storage_error(error.orig, path, operation) or error from error
    except sqlite3.Error as error:
        raise _storage_error(error, path, operation) or error from error
    except UnicodeEncodeError as error:
        raise StorageError(
            ErrorKind.INVALID,
            "this name is no Unicode text (UTF-8), so the registry can't record it; rename the file or "
            "folder",
            path=error.object,
            operation=operation,
        ) from error


def corrupt(path: str, what: object, operation: str = "read the registry") -> StorageError:
    """The registry's file is damaged: the images are not, and say most of what it knew."""
    return StorageError(
        ErrorKind.CORRUPT,
        f"the registry's file is damaged ({what}). Your images are not: drivebay rebuild FOLDER... makes the "
        "registry anew from them, from machine files and from media.json, and keeps this file beside",
        path=path,
        operation=operation,
    )


def _storage_error(error: object, path: str, operation: str) -> StorageError | None:
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _DAMAGE:
        return corrupt(path, error, operation)
    if code not in _MEANINGS:
        return None
    if code == sqlite3.SQLITE_IOERR and not _has_space(path):
        code = sqlite3.SQLITE_FULL
    kind, what = _MEANINGS[code]
    return StorageError(kind, f"{what} ({error})", path=path, operation=operation)


def _has_space(path: str) -> bool:
    try:
        return os.statvfs(os.path.dirname(path)).f_bavail > 0
    except OSError:
        return True


_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_MEANINGS: dict[int, tuple[ErrorKind, str]] = {
    sqlite3.SQLITE_BUSY: (
        ErrorKind.IN_USE,
        "another program holds the registry's file; end it, or wait for it, then try again",
    ),
    sqlite3.SQLITE_LOCKED: (ErrorKind.IN_USE, "the registry is locked; wait, then try again"),
    sqlite3.SQLITE_READONLY: (
        ErrorKind.READ_ONLY,
        "the registry can't be written; check the permissions of its file and folder, or use another --home",
    ),
    sqlite3.SQLITE_PERM: (ErrorKind.READ_ONLY, "the registry can't be opened; check its permissions"),
    sqlite3.SQLITE_CANTOPEN: (
        ErrorKind.READ_ONLY,
        "the registry's file can't be opened; check the permissions of its folder, or use another --home",
    ),
    sqlite3.SQLITE_FULL: (ErrorKind.NO_SPACE, "no space left for the registry; free some, then try again"),
    sqlite3.SQLITE_IOERR: (ErrorKind.IO, "the host failed to read or write the registry; see its kernel log"),
}


def require_sound(connection: Connection, path: str) -> None:
    """Raise StorageError (CORRUPT) for a file whose structure is damaged."""
    found: Any = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise corrupt(path, found)
