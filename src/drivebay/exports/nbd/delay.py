"""Requests of one connection that wait: for bandwidth, or for a held disk to go on."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from drivebay.engine.source import Buffer
from drivebay.exports.bandwidth import Line
from drivebay.exports.gate import Gate
from drivebay.exports.nbd.constants import Command
from drivebay.exports.nbd.requests import Request
from drivebay.exports.nbd.shared import Shared

_LIMITED = (Command.READ, Command.WRITE)


class Work(NamedTuple):
    """A request that was found good, with its payload, which may lie in a pooled ``buffer``.

    ``charge`` is what it counts for among those that are under way.
    """

    request: Request
    payload: Buffer
    charge: int
    buffer: mmap.mmap | None


class Delay(Line):
    """What of one connection waits. ``run`` gets the work whose time has come, in order.

    Everything runs in the loop's thread.
    """

    def __init__(self, gate: Gate, shared: Shared, run: Callable[[list[Work]], None]) -> None:
        super().__init__()
        self._gate = gate
        self._shared = shared
        self._run: Callable[[list[Work]], None] | None = run
        self._works: deque[Work] = deque()  # that wait for bandwidth; as many as there are costs
        self._parked: deque[Work] = deque()  # that wait for the held disk to go on

    def add(self, work: Work) -> bool:
        """Let a request wait if it must; the gate is closed."""
        if self._gate.held:
            self._gate.waiting += 1
            self._parked.append(work)
            self._gate.parked[self._go_on] = None
            return True
        if work.request.command not in _LIMITED:
            return False
        self._gate.waiting += 1
        self._works.append(work)
        self._gate.bandwidth.add(self, work.request.length, monotonic())
        self._shared.delayed.add(self._gate.bandwidth)
        return True

    def abandon(self) -> None:
        """The client is gone: what waits is not done."""
        self._run = None  # it refers to the connection, which shall go without the collector
        self._gate.bandwidth.forget(self)
        self._gate.parked.pop(self._go_on, None)
        for works in (self._works, self._parked):
            while works:
                self._drop(works.popleft())

    def go(self, count: int) -> None:
        works = [self._works.popleft() for _ in range(count)]
        self._gate.waiting -= count
        if self._gate.held:
            for work in works:
                self.add(work)
        elif self._run is not None:
            self._run(works)

    def _go_on(self) -> None:
        """The disk goes on."""
        works, self._parked = self._parked, deque()
        self._gate.waiting -= len(works)
        going = [work for work in works if not (self._gate.closed and self.add(work))]
        if self._run is not None:
            self._run(going)

    def _drop(self, work: Work) -> None:
        self._gate.waiting -= 1
        if work.buffer is not None:
            self._shared.payloads.give_back(work.buffer)
