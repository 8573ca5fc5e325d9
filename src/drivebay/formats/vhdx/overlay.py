"""A file as a replayed log leaves it, without a byte of it written."""

from __future__ import annotations

from collections.abc import Sequence

from drivebay.blockmap import FileChange, Files, FileWrite


def end_of(change: FileChange) -> int:
    """Where a change ends."""
    return change.offset + (len(change.data) if isinstance(change, FileWrite) else change.length)


class PatchedFiles:
    """The `Files` gate with ``changes`` made, later ones over earlier ones."""

    def __init__(self, files: Files, changes: Sequence[FileChange]) -> None:
        self._files = files
        self._changes = changes
        self.path = files.path
        self.part = files.part
        self.size = max(files.size, *(end_of(change) for change in changes))

    def read(self, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        end = max(min(offset + length, self.size), offset)
        stored = self._files.read(offset, end - offset)
        touching = [change for change in self._changes if change.offset < end and offset < end_of(change)]
        if not touching and len(stored) == end - offset:
            return stored
        data = bytearray(stored.ljust(end - offset, b"\0"))
        for change in touching:
            low, high = max(change.offset, offset), min(end_of(change), end)
            piece = bytes(high - low)
            if isinstance(change, FileWrite):
                piece = change.data[low - change.offset : high - change.offset]
            data[low - offset : high - offset] = piece
        return bytes(data)

    def beside(self, name: str) -> Files:
        """As `Files.beside`."""
        return self._files.beside(name)
