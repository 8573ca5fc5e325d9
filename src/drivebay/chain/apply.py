"""Changes that a format asks for, made to files."""

from __future__ import annotations

import os
from collections.abc import Callable

from drivebay.blockmap import FileChange, FileExtent, FileWrite
from drivebay.engine.source import FileSource

Progress = Callable[[int, int], None]  # bytes done, bytes in all

_RESERVE_STEP = 256 << 20


def apply_change(source: FileSource, change: FileChange, progress: Progress | None = None) -> None:
    """Make one change; it is not durable before the source is synced. Raises OSError.

    ``progress`` is told of the host's space being reserved.
    """
    match change:
        case FileWrite():
            source.write(change.data, change.offset)
        case FileExtent(reserve=True):
            _reserve(source, change, progress)
        case FileExtent():
            source.extend(change.offset + change.length)


def _reserve(source: FileSource, extent: FileExtent, progress: Progress | None) -> None:
    for done in range(0, extent.length, _RESERVE_STEP):
        step = min(_RESERVE_STEP, extent.length - done)
        source.reserve(extent.offset + done, step)
        if progress is not None:
            progress(done + step, extent.length)


def sync_folder(folder: str) -> None:
    """Make the names in a folder survive a power cut. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
