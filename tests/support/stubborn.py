"""A guest on a failing host: it notes what was acknowledged and what was not, and tries again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from drivebay.engine.disk import Disk
from drivebay.errors import StorageError
from support.timeline import Timeline, step_over


@dataclass(frozen=True)
class Request:
    """One request over whole sectors; ``fill`` is the byte to write, ``None`` for zeros and discards."""

    name: str  # write, zero, discard, flush, or read: of the whole disk, compared
    offset: int = 0
    length: int = 0
    fill: int = 0
    fua: bool = False
    unmap: bool = True

    @property
    def content(self) -> bytes:
        """What the range holds afterwards."""
        return bytes([self.fill]) * self.length

    def do(self, disk: Disk) -> None:
        """Send the request."""
        match self.name:
            case "write":
                disk.write(self.offset, self.content, fua=self.fua)
            case "zero":
                disk.zero(self.offset, self.length, unmap=self.unmap, fua=self.fua)
            case "discard":
                disk.discard(self.offset, self.length, fua=self.fua)
            case "flush":
                disk.flush()
            case _:
                raise ValueError(self.name)


@dataclass
class StubbornGuest:
    """``live`` is what the disk may read as now, ``durable`` what it may read as after a power cut."""

    disk: Disk
    content: bytes
    errors: list[StorageError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = Timeline(self.content)
        self.durable = Timeline(self.content)
        self._time = 0

    def run(self, requests: Sequence[Request], between: Callable[[], None] | None = None) -> None:
        """Send requests; one that fails is sent once more, after ``between``."""
        for request in requests:
            if not self.send(request):
                if between is not None:
                    between()
                self.send(request)

    def send(self, request: Request) -> bool:
        """Send a request; whether it has succeeded."""
        try:
            if request.name == "read":
                assert self.live_fault() is None
            else:
                request.do(self.disk)
        except StorageError as error:
            self.errors.append(error)
            self._note(request, succeeded=False)
            return False
        self._note(request, succeeded=True)
        return True

    def _note(self, request: Request, *, succeeded: bool) -> None:
        self._time += 1
        step = dataclasses.replace(step_over(b"", 0, 0, self._time - 1, self._time), succeeded=succeeded)
        if request.name in ("write", "zero", "discard"):
            first = step_over(request.content, 0, request.length, self._time - 1, self._time)
            step = dataclasses.replace(first, first=request.offset // 512, succeeded=succeeded)
        flushes = request.fua or request.name == "flush"
        self.durable.steps.append(dataclasses.replace(step, flushes=flushes))
        self.live.steps.append(dataclasses.replace(step, flushes=True))

    def live_fault(self) -> str | None:
        """What is wrong with the disk as it reads now."""
        return self.live.fault(self.disk.read(0, self.disk.size), self._time)

    def durable_fault(self, reopened: Disk) -> str | None:
        """What is wrong with the disk as a fresh process sees it."""
        return self.durable.fault(reopened.read(0, reopened.size), self._time)
