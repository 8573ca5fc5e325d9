"""Images in memory: `Files` over bytes, and what a format's `create` makes of an empty file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from drivebay.blockmap import FileCopy, FileEdit, FileExtent, FileReplace, FileWrite
from drivebay.errors import ErrorKind, StorageError


class MemoryFiles:
    """The `Files` gate over the bytes of one image; ``others`` are the files beside it, by name."""

    def __init__(
        self,
        data: bytes | bytearray,
        path: str = "image.vdi",
        others: Mapping[str, bytes | bytearray] | None = None,
        part: str = "",
    ) -> None:
        self.data = data
        self.path = path
        self.size = len(data)
        self.others = others or {}
        self.part = part

    def read(self, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        return bytes(self.data[offset : offset + length])

    def beside(self, name: str) -> MemoryFiles:
        """As `Files.beside`."""
        if name not in self.others:
            raise StorageError(ErrorKind.NOT_FOUND, "no such file; check the path", path=name)
        return MemoryFiles(self.others[name], name, self.others)


def files_made_by(
    changes: Iterable[FileEdit], before: Mapping[str, bytes | bytearray] | None = None
) -> dict[str, bytes]:
    """The files that ``changes`` make from empty ones, or from those ``before``; "" is the image itself."""
    files = {name: bytearray(data) for name, data in (before or {"": b""}).items()}
    for change in changes:
        data = files.setdefault(change.file, bytearray())
        if isinstance(change, FileReplace):
            data[:] = change.data
            continue
        if isinstance(change, FileCopy):
            copied = bytes(data[change.source : change.source + change.length])
            change = FileWrite(change.offset, copied.ljust(change.length, b"\0"), change.file)
        end = change.offset + (change.length if isinstance(change, FileExtent) else len(change.data))
        data.extend(bytes(max(0, end - len(data))))
        if not isinstance(change, FileExtent):
            data[change.offset : end] = change.data
    return {name: bytes(data) for name, data in files.items()}


def file_made_by(changes: Iterable[FileEdit]) -> bytes:
    """The one file that ``changes`` make from an empty one."""
    files = files_made_by(changes)
    assert set(files) == {""}
    return files[""]
