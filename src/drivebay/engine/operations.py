"""Which operations are under way: so that they can be held, and freed space be reused safely."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from drivebay.errors import ErrorKind, StorageError


class Operations:
    """Numbers operations in the order in which they begin. Uses the disk's condition throughout."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._next = 1
        self._active: dict[int, None] = {}
        self._writers = 0
        self._count = 0
        self._mine = threading.local()
        self.held = 0
        self.frozen = False
        self.closed = False

    @property
    def newest(self) -> int:
        """The number of the newest operation so far."""
        return self._next - 1

    def oldest(self) -> int:
        """The number of the oldest operation under way; that of the next one where there is none."""
        with self._changed:
            return self.oldest_under_way

    @property
    def oldest_under_way(self) -> int:
        """The same; the disk's lock is held."""
        return next(iter(self._active), self._next)

    @contextmanager
    def under_way(self, *, writes: bool) -> Iterator[None]:
        """An operation; it waits while all are frozen, one that writes also while writers are held.

        Raises STATE after `close`.
        """
        with self._changed:
            while (self.frozen or (writes and self.held)) and not self.closed:
                self._changed.wait()
            self.require_open()
            self._writers += writes
            self._count += 1
            self._begin()
        try:
            yield
        finally:
            with self._changed:
                del self._active[self._mine.number]
                self._writers -= writes
                self._count -= 1
                self._changed.notify_all()

    def _begin(self) -> None:
        self._mine.number = self._next
        self._active[self._next] = None
        self._next += 1

    def pause(self, seconds: float | None = None) -> None:
        """Wait, ``seconds`` at most, for something to change; the disk's lock is held.

        The calling thread's operation has no I/O under way and remembers no place in a file, so it
        counts as begun afterwards: nobody who waits for older ones to end needs to wait for it.
        """
        del self._active[self._mine.number]
        try:
            self._changed.wait(seconds)
        finally:
            self._begin()

    def hold_writers(self) -> None:
        """No write begins until `release_writers`, and none is under way when this returns."""
        with self._changed:
            self.held += 1
            while self._writers:
                self._changed.wait()

    def release_writers(self) -> None:
        """Writes go on, unless somebody else holds them."""
        with self._changed:
            self.held -= 1
            self._changed.notify_all()

    @contextmanager
    def freeze(self) -> Iterator[None]:
        """No operation is under way, and none begins until the block ends; one caller at a time."""
        with self._changed:
            self.require_open()
            self.frozen = True
        try:
            with self._changed:
                while self._count:
                    self._changed.wait()
            yield
        finally:
            with self._changed:
                self.frozen = False
                self._changed.notify_all()

    def close(self) -> bool:
        """No operation begins from now on, and none is under way when this returns; false if it was so."""
        with self._changed:
            if self.closed:
                return False
            self.closed = True
            self._changed.notify_all()
            while self._count:
                self._changed.wait()
            return True

    def require_open(self) -> None:
        """Raises STATE after `close`."""
        if self.closed:
            raise StorageError(ErrorKind.STATE, "the disk is closed; open it again")
