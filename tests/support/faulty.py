"""A source whose N-th operation of a kind fails."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

from drivebay.engine.source import Buffer, FileSource


class Operation(enum.Enum):
    """What a source can be asked for."""

    READ = "read"
    WRITE = "write"
    SYNC = "sync"
    EXTEND = "extend"
    SHORTEN = "shorten"
    ZERO = "zero"


@dataclass
class Fault:
    """Operation number ``number`` (from 1) of a kind fails with ``code``; if ``lasting``, so do all that
    follow, until `heal`. ``met`` tells how many have failed.
    """

    operation: Operation
    number: int
    code: int
    lasting: bool = False
    seen: int = 0
    met: int = 0

    def source(self, fd: int, path: str, writable: bool) -> FileSource:
        """A source with this fault; a `MakeSource`."""
        return FaultySource(fd, path, writable=writable, fault=self)

    def heal(self) -> None:
        """From now on nothing fails."""
        self.number = 1 << 62
        self.lasting = False

    def meets(self, operation: Operation) -> bool:
        """Count an operation; whether it shall fail."""
        if operation is not self.operation:
            return False
        self.seen += 1
        failing = self.seen == self.number or (self.lasting and self.seen > self.number)
        self.met += failing
        return failing

    def error(self) -> OSError:
        """What it fails with."""
        return OSError(self.code, os.strerror(self.code))


class FaultySource(FileSource):
    """A `FileSource` with a fault. A write that fails has written some of its sectors."""

    def __init__(self, fd: int, path: str, *, writable: bool, fault: Fault) -> None:
        super().__init__(fd, path, writable=writable)
        self._fault = fault
        self._write_at_once = self.try_write
        self.try_write = self._try_write

    def _enter(self, operation: Operation) -> None:
        if self._fault.meets(operation):
            raise self._fault.error()

    def _try_write(self, view: memoryview, offset: int) -> int:
        self._enter(Operation.WRITE)
        return self._write_at_once(view, offset)

    def read_into(self, view: memoryview, offset: int) -> None:
        """As `FileSource.read_into`."""
        self._enter(Operation.READ)
        super().read_into(view, offset)

    def write(self, data: Buffer, offset: int) -> None:
        """As `FileSource.write`."""
        if self._fault.meets(Operation.WRITE):
            super().write(memoryview(data)[: len(data) // 1024 * 512], offset)
            raise self._fault.error()
        super().write(data, offset)

    def extend(self, size: int) -> None:
        """As `FileSource.extend`; only those that change the file count."""
        if size > self.size:
            self._enter(Operation.EXTEND)
        super().extend(size)

    def shorten(self, size: int) -> None:
        """As `FileSource.shorten`; only those that change the file count."""
        if size < self.size:
            self._enter(Operation.SHORTEN)
        super().shorten(size)

    def zero_range(self, offset: int, length: int, *, punch: bool) -> None:
        """As `FileSource.zero_range`."""
        self._enter(Operation.ZERO)
        super().zero_range(offset, length, punch=punch)

    def sync(self) -> None:
        """As `FileSource.sync`."""
        self._enter(Operation.SYNC)
        super().sync()
