"""How the loop waits for events: it looks a short time without sleeping, where that pays.

Waking a sleeping thread costs more than a request. But on a machine whose processors are all in use, a
thread that looks without sleeping takes the time of the very client it waits for.
"""

from __future__ import annotations

import resource
import select
from time import monotonic
from typing import Final

_LOOK: Final = 50e-6  # seconds to look without sleeping
_WORTH: Final = 100e-6  # a sleep shorter than this would have been worth a look
_WINDOW: Final = 0.02  # seconds between looks at how crowded the processors are
_PENALTY: Final = 0.5  # seconds to only sleep after the processors were found crowded
_CROWDED: Final = 0.1  # of the looks in a window: the system took the processor away meanwhile


class Eagerness:
    """Decides whether to look without sleeping; used by one thread."""

    def __init__(self) -> None:
        self._eager = False  # the last sleep was short
        self._looks = 0  # in this window
        self._preempted = 0  # when this window began
        self._window_ends = 0.0
        self._sleep_until = 0.0

    def look_until(self, now: float) -> float:
        """How long to look, on the monotonic clock: until ``now`` where looking does not pay."""
        return now + _LOOK if self._eager and self._may_look(now) else now

    def waited(self, seconds: float) -> None:
        """What came next came after so long."""
        self._eager = seconds < _LOOK + _WORTH

    def _may_look(self, now: float) -> bool:
        """False for a while after the system kept taking the processor away from this thread."""
        self._looks += 1
        if now < self._window_ends:
            return True
        if now < self._sleep_until:
            return False
        preempted = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        measured = now < self._window_ends + _WINDOW  # else the count is about more than looking
        crowded = measured and preempted - self._preempted > _CROWDED * self._looks
        self._preempted, self._looks = preempted, 0
        self._window_ends = now + (0 if crowded else _WINDOW)
        self._sleep_until = now + (_PENALTY if crowded else 0)
        return not crowded


class Waiter:
    """Waits on ``epoll``; used by one thread."""

    def __init__(self, epoll: select.epoll, eagerness: Eagerness) -> None:
        self._poll = epoll.poll
        self._eagerness = eagerness

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """The next events, or none after ``timeout`` seconds."""
        poll = self._poll
        started = now = monotonic()
        until = self._eagerness.look_until(now)
        while now < until:
            if events := poll(0):
                return events
            now = monotonic()
        events = poll(timeout)
        self._eagerness.waited(monotonic() - started)
        return events
