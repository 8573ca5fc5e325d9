"""The registry: consistent views, and changes that happen wholly or not at all, their files included.

A change commits its rows together with a journal of what is still to be done with files. The lock of
changes is held until that is done, so whoever holds it next and finds such rows knows that their writer
died, and does it first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.registry import journal, media, schema, trash
from drivebay.registry.creation import undo_creation
from drivebay.registry.document import media_text
from drivebay.registry.home import Home
from drivebay.registry.journal import INTENT, Effect, Step, Trash, WriteFile
from drivebay.registry.medium import MediaTree, Medium, Use
from drivebay.registry.migrations import is_current, migrate
from drivebay.registry.process import ChangeLock, Presence, is_alive
from drivebay.registry.sqlite import corrupt, make_engine, reported, require_sound, transaction

_log = logging.getLogger("drivebay.registry")
_TIMEOUT = 20.0  # seconds


def open_registry(home: Home, *, durable: bool = True, timeout: float = _TIMEOUT) -> Registry:
    """Open home's registry; make it if it isn't there, and finish what dead processes left undone.

    ``durable`` off is for tests: changes survive a killed process, but no power cut. ``timeout`` is how
    many seconds to wait for others. Raises StorageError: STATE for a registry from a newer drivebay,
    CORRUPT for a damaged one, IN_USE.
    """
    try:
        os.makedirs(home.folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, "make drivebay's home", path=home.folder) from error
    registry = Registry(home, durable=durable, timeout=timeout)
    try:
        registry.prepare()
    except BaseException:
        registry.close()
        raise
    return registry


class View:
    """What the registry holds at one moment; ``connection`` is in a transaction that sees nothing newer."""

    def __init__(self, connection: Connection, path: str) -> None:
        self.connection = connection
        self._path = path
        self._tree: MediaTree | None = None

    @property
    def tree(self) -> MediaTree:
        """All media and their uses, read once."""
        if self._tree is None:
            try:
                self._tree = media.load_tree(self.connection)
            except ValueError as error:
                raise corrupt(self._path, error) from error
        return self._tree


class Change(View):
    """A view that can be changed; nobody else sees it before it is committed. Do not keep it."""

    def __init__(self, connection: Connection, home: Home) -> None:
        super().__init__(connection, home.registry)
        self._home = home
        self._media_changed = False
        self.finished: list[Intent] = []

    def put_medium(self, medium: Medium) -> None:
        """Add a medium, or change the one with this UUID."""
        tree = self.tree
        media.store_medium(self.connection, medium)
        self._tree = replace(tree, media={**tree.media, medium.uuid: medium})
        self._media_changed = True

    def remove_medium(self, uuid: UUID) -> None:
        """Forget a medium; its file stays."""
        tree = self.tree
        media.drop_medium(self.connection, uuid)
        self._tree = replace(tree, media={key: one for key, one in tree.media.items() if key != uuid})
        self._media_changed = True

    def set_uses(self, machine: UUID, uses: Iterable[Use]) -> None:
        """Replace all that the registry knows of which media a machine and its snapshots use."""
        tree, new = self.tree, tuple(uses)
        media.store_uses(self.connection, machine, new)
        kept = tuple(use for use in tree.uses if use.machine != machine)
        self._tree = replace(tree, uses=kept + new)

    def after_commit(self, effect: Effect) -> None:
        """Have this done to files once the change is committed, even if the process dies right then."""
        if isinstance(effect, Trash):
            for rename in trash.throw_away(self.connection, self._home, effect):
                self._note(journal.steps_of(rename))
        else:
            self._note(journal.steps_of(effect))

    def _note(self, steps: Iterable[Step]) -> None:
        table = schema.journal
        for step in steps:
            if step.kind == "write":  # an older text must not come back over this one
                older = (table.c.kind == "write") & (table.c.path == step.path)
                self.connection.execute(delete(table).where(older))
            row = {"kind": step.kind, "owner": "", "path": step.path, "payload": step.payload()}
            self.connection.execute(insert(table).values(row))

    def finish(self, intent: Intent) -> None:
        """The files of ``intent`` stay, if this change is committed."""
        self.connection.execute(delete(schema.journal).where(schema.journal.c.id == intent.id))
        self.finished.append(intent)

    def mirror_media(self) -> None:
        """Copy what changed of the media to home's media.json, after the commit."""
        if self._media_changed:
            self.after_commit(WriteFile(self._home.media_file, media_text(self.tree.media.values())))


class Intent:
    """Files that are being made. As a context manager it takes them back, unless a change finished it."""

    def __init__(self, registry: Registry, number: int, paths: Sequence[str]) -> None:
        self.id = number
        self.paths = tuple(paths)
        self.finished = False
        self._registry = registry

    def undo(self) -> None:
        """Remove the files, as far as they have been made."""
        if not self.finished:
            self._registry.take_back(self.id, self.paths)
            self.finished = True

    def __enter__(self) -> Intent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


class Registry:
    """An open registry; threads may share it. A context manager that closes it."""

    def __init__(self, home: Home, *, durable: bool, timeout: float) -> None:
        self.home = home
        self._durable = durable
        self._timeout = timeout
        self._engine = make_engine(home.registry, durable=durable, timeout=timeout)
        self._lock = ChangeLock(home.change_lock)
        self._presence: Presence | None = None

    def prepare(self) -> None:
        """Bring the tables up to date, and finish what dead processes left undone."""
        path = self.home.registry
        fresh = not os.path.exists(path) or not os.path.getsize(path)
        if fresh and os.path.exists(self.home.media_file):
            raise corrupt(path, "it is gone or empty, and media.json says that it was not")
        with reported(path, "open the registry"):
            with transaction(self._engine) as connection:
                require_sound(connection, path)
                current = is_current(connection, path)
            if not current:
                with self._locked(), transaction(self._engine, immediate=True) as connection:
                    migrate(connection, path)
            if self._has_leftovers():
                with self._locked():
                    self._undo_dead_intents()

    @contextmanager
    def view(self) -> Iterator[View]:
        """One consistent state of the registry, whatever others change meanwhile."""
        with reported(self.home.registry, "read the registry"), transaction(self._engine) as connection:
            yield View(connection, self.home.registry)

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A change: committed on leaving, with its effects on files done; rolled back on an exception."""
        with reported(self.home.registry, "change the registry"), self._locked():
            with transaction(self._engine, immediate=True) as connection:
                change = Change(connection, self.home)
                yield change
                change.mirror_media()
            for intent in change.finished:
                intent.finished = True
            self._finish_effects()

    def intend(self, creates: Sequence[str]) -> Intent:
        """Record that this process makes these files, which must not be there; folders may be.

        Whoever opens the registry after this process died removes them, unless a change finished the
        intent. Raises StorageError (INVALID) for a file that exists.
        """
        paths = [os.path.abspath(path) for path in creates]
        for path in paths:
            _require_free(path)
        new = [path for path in paths if not os.path.isdir(path)]
        with reported(self.home.registry, "change the registry"), self._locked():
            row = {
                "kind": INTENT,
                "owner": self._token(),
                "path": "",
                "payload": Step("", "", "\0".join(new)).payload(),
            }
            with transaction(self._engine, immediate=True) as connection:
                number = connection.execute(insert(schema.journal).values(row)).inserted_primary_key
        assert number is not None
        return Intent(self, number[0], new)

    def take_back(self, number: int, paths: Sequence[str]) -> None:
        """Undo an intent of this process."""
        with reported(self.home.registry, "change the registry"), self._locked():
            self._undo(number, paths)

    def close(self) -> None:
        """Close it; what this process intended and did not finish will be undone."""
        self._engine.dispose()
        if self._presence is not None:
            self._presence.close()
            self._presence = None

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _token(self) -> str:
        if self._presence is None:
            self._presence = Presence(self.home.processes)
        return self._presence.token

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.held(self._timeout):
            self._finish_effects()
            yield

    def _has_leftovers(self) -> bool:
        """Rows of whoever changes the registry right now count, too: it does no harm to look again."""
        table = schema.journal
        with transaction(self._engine) as connection:
            rows = connection.execute(select(table.c.kind, table.c.owner)).all()
        return any(kind != INTENT or not is_alive(self.home.processes, owner) for kind, owner in rows)

    def _finish_effects(self) -> None:
        table = schema.journal
        with transaction(self._engine) as connection:
            if not _has_tables(connection):
                return
            rows = connection.execute(select(table).where(table.c.kind != INTENT).order_by(table.c.id)).all()
        done = [row.id for row in rows if self._perform(journal.read_step(row.kind, row.path, row.payload))]
        if done:
            with transaction(self._engine, immediate=True) as connection:
                connection.execute(delete(table).where(table.c.id.in_(done)))

    def _perform(self, step: Step) -> bool:
        try:
            journal.perform(step, durable=self._durable)
        except StorageError as error:
            # The change is made, and can't be taken back: the next one tries again.
            _log.warning("left to do, see drivebay doctor: %s", error)
            return False
        return True

    def _undo_dead_intents(self) -> None:
        table = schema.journal
        with transaction(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.kind == INTENT)).all()
        for row in rows:
            if not is_alive(self.home.processes, row.owner):
                detail = journal.read_step(row.kind, row.path, row.payload).detail
                self._undo(row.id, detail.split("\0") if detail else [])

    def _undo(self, number: int, paths: Sequence[str]) -> None:
        try:
            for path in paths:
                undo_creation(path)
        except OSError as error:
            raise from_os_error(error, "remove an unfinished file", path=path) from error
        with transaction(self._engine, immediate=True) as connection:
            connection.execute(delete(schema.journal).where(schema.journal.c.id == number))


def _has_tables(connection: Connection) -> bool:
    return (
        connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'journal'").scalar() is not None
    )


def _require_free(path: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        raise StorageError(
            ErrorKind.INVALID,
            "this file exists, and nothing is ever overwritten; choose another name or remove the file first",
            path=path,
            operation="create",
        )
