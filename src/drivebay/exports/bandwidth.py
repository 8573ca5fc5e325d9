"""Bandwidth limits that disks share. Pure arithmetic on a clock that the caller brings; see `Bandwidth`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque

_SLACK = 0.1  # seconds that may be caught up with: a loop's delays, and a client's time to think
_PART = 8  # of the time that a request takes, the part that may be caught up with after it


class Line(ABC):
    """Requests of one client that wait, in order."""

    def __init__(self) -> None:
        self.costs: deque[int] = deque()  # bytes
        self.served = 0  # bytes, as far as the lines of one bandwidth are compared

    @abstractmethod
    def go(self, count: int) -> None:
        """So many of the first requests may go now; their costs are gone."""


class Bandwidth:
    """A limit in bytes per second; 0 is none. Used by one thread.

    A request goes when the time has passed that its bytes take, counted from the end of the one before: so
    the limit is never exceeded from the moment on when the first one came, whatever their sizes are, and
    what is late is made up for. Of several lines the one goes next that got least.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.lines: dict[Line, None] = {}  # that have requests
        self.due = 0.0  # when `release` should be called next, on the caller's clock in seconds
        self._free = 0.0  # when the requests that went are paid for
        self._last = 0.0  # when a request came or went
        self._slack = _SLACK
        self._served = 0  # of the line that went last

    def add(self, line: Line, cost: int, now: float) -> None:
        """A request of ``cost`` bytes waits; `release` lets it go, perhaps at once."""
        if not self.lines:  # what nobody asked for is not saved up
            idle = now - self._last > self._slack
            self._free = max(self._free, now if idle else now - self._slack)
        self._last = now
        if line not in self.lines:
            line.served = max(line.served, self._served)
            self.lines[line] = None
        line.costs.append(cost)
        self.due = now

    def forget(self, line: Line) -> None:
        """The client is gone, and its requests with it."""
        self.lines.pop(line, None)
        line.costs.clear()

    def release(self, now: float) -> None:
        """Let go whose time has come."""
        going: Counter[Line] = Counter()
        while self.lines:
            line = min(self.lines, key=lambda each: each.served)
            cost = line.costs[0]
            self.due = self._free + cost / self.limit if self.limit else now
            if self.due > now:
                break
            self._slack = max(_SLACK, (self.due - self._free) / _PART)
            self._free = max(self.due, now - self._slack)
            self._take(line, cost)
            going[line] += 1
        for line, count in going.items():
            self._last = now
            line.go(count)

    def _take(self, line: Line, cost: int) -> None:
        line.costs.popleft()
        line.served += cost
        self._served = line.served
        if not line.costs:
            del self.lines[line]
