"""The threads that make the calls that may wait, and the way back to the loop."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """A pool of threads. ``fd`` becomes readable when there is something to `collect`."""

    def __init__(self, count: int) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)  # not in `close`: a late `wake` must not hit another file
        self._jobs: SimpleQueue[Callable[[], Callable[[], None]] | None] = SimpleQueue()
        self._results: deque[Callable[[], None]] = deque()
        self._signalled = False
        self._threads = [Thread(target=self._work, name=f"nbd-worker-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Start the threads: not earlier than in the process that is to serve, for forks lose threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run ``work`` in a thread, then ``done`` with its result in the thread that collects."""

        def job() -> Callable[[], None]:
            result = work()
            return lambda: done(result)

        self._jobs.put(job)

    def post(self, task: Callable[[], None]) -> None:
        """Run ``task`` in the thread that collects."""
        self._results.append(task)
        self.wake()

    def collect(self) -> None:
        """Run what the finished jobs left to do."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        # Only now: a job that ends before this line is popped below, one that ends after it signals again.
        self._signalled = False
        while self._results:
            self._results.popleft()()

    def wake(self) -> None:
        """Make ``fd`` readable. Safe in any thread and in a signal handler."""
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Let the threads finish what was submitted, and end them."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._results.append(job())
            if not self._signalled:
                self._signalled = True
                self.wake()
