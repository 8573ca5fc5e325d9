"""Images in memory: `Files` over bytes, and what a format's `create` makes of an empty file."""

from __future__ import annotations

from collections.abc import Iterable

from drivebay.blockmap import FileChange, FileExtent


class MemoryFiles:
    """The `Files` gate over the bytes of one image."""

    def __init__(self, data: bytes, path: str = "image.vdi") -> None:
        self.data = data
        self.path = path
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        return self.data[offset : offset + length]


def file_made_by(changes: Iterable[FileChange]) -> bytes:
    """The file that ``changes`` make from an empty one."""
    data = bytearray()
    for change in changes:
        end = change.offset + (change.length if isinstance(change, FileExtent) else len(change.data))
        data.extend(bytes(max(0, end - len(data))))
        if not isinstance(change, FileExtent):
            data[change.offset : end] = change.data
    return bytes(data)
