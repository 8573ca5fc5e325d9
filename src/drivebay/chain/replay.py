"""What an interrupted writer left in an image's log (`Layer.replay`): done for writers, shown to readers."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import numpy as np

from drivebay.blockmap import FileChange, FileWrite
from drivebay.engine.source import FileSource
from drivebay.errors import from_os_error

Stages = Sequence[Sequence[FileChange]]


def replay_log(source: FileSource, stages: Stages) -> None:
    """Make the changes, each stage durable before the next. Raises StorageError; it may be begun again."""
    try:
        for stage in stages:
            for change in stage:
                _apply(source, change)
            source.sync()
    except OSError as error:
        raise from_os_error(error, "replay the log", path=source.path) from error


def _apply(source: FileSource, change: FileChange) -> None:
    if isinstance(change, FileWrite):
        source.write(change.data, change.offset)
        return
    end = _end(change)
    if (there := min(end, source.size) - change.offset) > 0:
        source.zero_range(change.offset, there, punch=True)
    source.extend(end)


def _end(change: FileChange) -> int:
    return change.offset + (len(change.data) if isinstance(change, FileWrite) else change.length)


class ReplayedSource(FileSource):
    """A file as its log leaves it, without a byte of it written; always through the host's page cache."""

    def __init__(self, fd: int, path: str, stages: Stages) -> None:
        super().__init__(fd, path, writable=False)
        self._changes = [change for stage in stages for change in stage]
        self._starts = np.array([change.offset for change in self._changes], np.int64)
        self._ends = np.array([_end(change) for change in self._changes], np.int64)
        self._stored = self.size
        self.size = max(self.size, int(self._ends.max(initial=0)))
        self.reads_at_once = True
        self.try_read = self._never_at_once

    def _never_at_once(self, _views: Sequence[memoryview], _offset: int, _flags: int) -> int:
        raise BlockingIOError(errno.EAGAIN, "a log lies over this file")

    def read_into(self, view: memoryview, offset: int) -> None:
        """As `FileSource.read_into`."""
        end = offset + len(view)
        stored = max(min(self._stored, end) - offset, 0)
        super().read_into(view[:stored], offset)
        view[stored:] = bytes(len(view) - stored)
        if end > self.size:
            self._zero_fill_tail(view, max(self.size - offset, 0), offset)
        for index in np.flatnonzero((self._starts < end) & (self._ends > offset)):
            self._overlay(view, offset, self._changes[index])

    def _overlay(self, view: memoryview, offset: int, change: FileChange) -> None:
        low, high = max(change.offset, offset), min(_end(change), offset + len(view))
        piece = bytes(high - low)
        if isinstance(change, FileWrite):
            piece = change.data[low - change.offset : high - change.offset]
        view[low - offset : high - offset] = piece
