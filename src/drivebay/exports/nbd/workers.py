"""The threads that make the calls that may wait, and the way back to the loop."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

T = TypeVar("T")

Job = Callable[[], Callable[[], None]]
Lane = deque[Job]  # what one client has to be done, in order


class Workers:
    """A pool of threads. ``fd`` becomes readable when there is something to `collect`.

    The lanes that have jobs take turns: nobody waits for all that another one asked for.
    """

    def __init__(self, count: int) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)  # not in `close`: a late `wake` must not hit another file
        self._lock = Lock()
        self._lanes: deque[Lane] = deque()  # that have jobs, and some that were forgotten
        self._calls: SimpleQueue[bool] = SimpleQueue()  # one for each job, and false for each thread's end
        self._results: deque[Callable[[], None]] = deque()
        self._signalled = False
        self._threads = [Thread(target=self._work, name=f"nbd-worker-{n}", daemon=True) for n in range(count)]

    def start(self) -> None:
        """Start the threads: not earlier than in the process that is to serve, for forks lose threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, lane: Lane, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run ``work`` in a thread, then ``done`` with its result in the thread that collects."""

        def job() -> Callable[[], None]:
            result = work()
            return lambda: done(result)

        with self._lock:
            if not lane:
                self._lanes.append(lane)
            lane.append(job)
        self._calls.put(True)

    def forget(self, lane: Lane) -> int:
        """Do nothing that has not begun, and is told as this number; the lane is not used again."""
        with self._lock:
            count = len(lane)
            lane.clear()
        return count

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
            self._calls.put(False)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._calls.get():
            job = self._next()
            if job is None:
                continue
            self._results.append(job())
            del job  # it refers to a payload
            if not self._signalled:
                self._signalled = True
                self.wake()

    def _next(self) -> Job | None:
        """The first job of the lane whose turn it is; ``None`` if it was forgotten."""
        with self._lock:
            while self._lanes:
                lane = self._lanes.popleft()
                if not lane:
                    continue
                job = lane.popleft()
                if lane:
                    self._lanes.append(lane)
                return job
        return None
