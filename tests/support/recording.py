"""A source that logs everything that reaches its file, in order."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from drivebay.blockmap import Layer, Table
from drivebay.engine.source import Buffer, FileSource


class Change(enum.Enum):
    """What was done to a file."""

    WRITE = "write"
    EXTEND = "extend"
    SHORTEN = "shorten"
    ZERO = "zero"
    SYNC = "sync"


class Event(NamedTuple):
    """One change: ``length`` bytes at ``offset``, or the new size; ``data`` for writes only."""

    change: Change
    path: str
    offset: int = 0
    length: int = 0
    data: bytes = b""


@dataclass
class Log:
    """All events of all recording sources that share it."""

    events: list[Event] = field(default_factory=list)

    def source(self, fd: int, path: str, writable: bool) -> FileSource:
        """A recording source; a `MakeSource`."""
        return RecordingSource(fd, path, writable=writable, log=self)


class RecordingSource(FileSource):
    """Does what a `FileSource` does, and logs what changes the file."""

    def __init__(self, fd: int, path: str, *, writable: bool, log: Log) -> None:
        super().__init__(fd, path, writable=writable)
        self._log = log
        self._write_at_once = self.try_write
        self.try_write = self._try_write

    def _add(self, change: Change, offset: int = 0, length: int = 0, data: bytes = b"") -> None:
        self._log.events.append(Event(change, self.path, offset, length, data))

    def _try_write(self, view: memoryview, offset: int) -> int:
        done = self._write_at_once(view, offset)
        self._add(Change.WRITE, offset, done, bytes(view[:done]))
        return done

    def write(self, data: Buffer, offset: int) -> None:
        """As `FileSource.write`."""
        super().write(data, offset)
        self._add(Change.WRITE, offset, len(data), bytes(data))

    def zero_range(self, offset: int, length: int, *, punch: bool) -> None:
        """As `FileSource.zero_range`."""
        super().zero_range(offset, length, punch=punch)
        self._add(Change.ZERO, offset, length)

    def extend(self, size: int) -> None:
        """As `FileSource.extend`."""
        before = self.size
        super().extend(size)
        if self.size != before:
            self._add(Change.EXTEND, length=self.size)

    def shorten(self, size: int) -> None:
        """As `FileSource.shorten`."""
        before = self.size
        super().shorten(size)
        if self.size != before:
            self._add(Change.SHORTEN, length=self.size)

    def sync(self) -> None:
        """As `FileSource.sync`."""
        super().sync()
        self._add(Change.SYNC)


def stage_of(event: Event, layer: Layer) -> str:
    """The stage that an event of an image belongs to, as far as its place tells."""
    if event.change is Change.SYNC:
        return "barrier"
    if event.change in (Change.EXTEND, Change.SHORTEN):
        return "data"
    table = next((segment for segment in layer.segments if isinstance(segment, Table)), None)
    if table is None or event.offset >= table.entry.base:
        return "data"
    return "entries" if event.offset >= table.root else "reserve"
