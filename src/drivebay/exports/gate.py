"""Whether the requests to an export go ahead at once, and which of them wait."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from drivebay.exports.bandwidth import Bandwidth


class Gate:
    """One export's gate. Only the thread of the serving loop touches it; others may read.

    While ``closed``, reads and writes wait for bandwidth, and while it is held everything does.
    """

    __slots__ = ("bandwidth", "closed", "held", "idle", "in_workers", "parked", "waiting")

    def __init__(self, bandwidth: Bandwidth | None = None) -> None:
        self.bandwidth = bandwidth or Bandwidth()
        self.held = 0
        self.closed = False
        self.idle = Event()  # set while it is held and none of its requests is under way
        self.in_workers = 0  # requests under way
        self.waiting = 0  # requests that wait, of either kind
        self.parked: dict[Callable[[], None], None] = {}  # to call when it is held no more
        self.update()

    def update(self) -> None:
        """The limit of the bandwidth has changed."""
        self.closed = bool(self.held or self.bandwidth.limit)

    def hold(self) -> None:
        """Let no request begin."""
        self.held += 1
        self.update()
        if not self.in_workers:
            self.idle.set()

    def release(self) -> None:
        """Undo one `hold`."""
        self.held -= 1
        self.update()
        if not self.held:
            self.idle.clear()
            parked, self.parked = self.parked, {}
            for go_on in parked:
                go_on()

    def begun(self) -> None:
        """A request is given to the worker threads."""
        self.in_workers += 1

    def ended(self) -> None:
        """The worker threads are done with a request."""
        self.in_workers -= 1
        if self.held and not self.in_workers:
            self.idle.set()
