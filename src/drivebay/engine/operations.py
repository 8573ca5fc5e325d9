"""Which operations are under way: so that writers can be held, and freed space be reused safely."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Operations:
    """Numbers operations in the order in which they begin. Uses the disk's condition throughout."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._next = 1
        self._active: dict[int, None] = {}
        self._writers = 0
        self._mine = threading.local()
        self.held = False

    @property
    def newest(self) -> int:
        """The number of the newest operation so far."""
        return self._next - 1

    @property
    def oldest(self) -> int:
        """The number of the oldest operation under way; that of the next one where there is none."""
        return next(iter(self._active), self._next)

    @contextmanager
    def under_way(self, *, writes: bool) -> Iterator[None]:
        """An operation; one that writes waits while writers are held."""
        with self._changed:
            while writes and self.held:
                self._changed.wait()
            self._writers += writes
            self._begin()
        try:
            yield
        finally:
            with self._changed:
                del self._active[self._mine.number]
                self._writers -= writes
                self._changed.notify_all()

    def _begin(self) -> None:
        self._mine.number = self._next
        self._active[self._next] = None
        self._next += 1

    def renew(self) -> None:
        """The calling thread's operation has no I/O under way: count it as begun just now."""
        with self._changed:
            del self._active[self._mine.number]
            self._begin()
            self._changed.notify_all()

    def wait_for_change(self, seconds: float) -> None:
        """Wait until some operation ends or is renewed, ``seconds`` at most."""
        with self._changed:
            self._changed.wait(seconds)

    def hold_writers(self) -> None:
        """No write begins from now on, and none is under way when this returns."""
        with self._changed:
            while self.held:
                self._changed.wait()
            self.held = True
            while self._writers:
                self._changed.wait()

    def release_writers(self) -> None:
        """Writes go on."""
        with self._changed:
            self.held = False
            self._changed.notify_all()
