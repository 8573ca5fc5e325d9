"""What the host holds of an image's file in its cache: for reads that must not wait."""

from __future__ import annotations

import errno

from drivebay.engine.source import FileSource, TryRead


class CachedSource(FileSource):
    """``source`` as it is now, for reading tables; ``read`` (with ``flags``) must not wait.

    A read of what is not at hand as a whole raises ``BlockingIOError``. Owns nothing.
    """

    def __init__(self, source: FileSource, read: TryRead, flags: int) -> None:
        self.fd, self.path, self.writable = source.fd, source.path, False
        self.size, self.padding = source.size, source.padding
        self._read = read
        self._flags = flags

    def read_into(self, view: memoryview, offset: int) -> None:
        """As `FileSource.read_into`, at once or not at all."""
        if self._read((view,), offset, self._flags) != len(view):
            raise BlockingIOError(errno.EAGAIN, "not all of it can be read at once")
