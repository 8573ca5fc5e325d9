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
        self._active: dict[int, bool] = {}
        self._writers = 0
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
            number = self._next
            self._next += 1
            self._active[number] = writes
            self._writers += writes
        try:
            yield
        finally:
            with self._changed:
                del self._active[number]
                self._writers -= writes
                if self.held:
                    self._changed.notify_all()

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
