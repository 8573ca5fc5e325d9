"""The `Files` gate over files in a folder, without the product's checks: any name beside will do."""

from __future__ import annotations

import os
from collections.abc import Mapping

from drivebay.errors import from_os_error


class OpenFile:
    """One opened file of an image. Further ones are opened once, with ``flags``, and shared.

    ``others`` are descriptors of further files by name, where they don't lie in the folder. `close`
    closes all, this one too; `take` gives some of them away first.
    """

    def __init__(
        self,
        fd: int,
        path: str,
        *,
        part: str = "",
        flags: int = os.O_RDONLY,
        others: Mapping[str, int] | None = None,
    ) -> None:
        self.fd = fd
        self.path = path
        self.part = part
        self.size = os.fstat(fd).st_size
        self._flags = flags
        self._opened: dict[str, OpenFile] = {}
        for name, other in (others or {}).items():
            self._add(name, other)

    def _add(self, name: str, fd: int) -> OpenFile:
        file = OpenFile(fd, self._path_of(name), flags=self._flags)
        file._opened = self._opened
        self._opened[name] = file
        return file

    def _path_of(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.path), name)

    def beside(self, name: str) -> OpenFile:
        """As `Files.beside`."""
        if name in self._opened:
            return self._opened[name]
        path = self._path_of(name)
        try:
            return self._add(name, os.open(path, self._flags))
        except OSError as error:
            raise from_os_error(error, "open", path=path) from error

    def read(self, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        return os.pread(self.fd, min(length, max(self.size - offset, 0)), offset)

    def take(self, names: tuple[str, ...]) -> list[tuple[int, str]]:
        """Descriptors and paths of the image and of the files ``names``; all others are closed."""
        files = [self, *map(self.beside, names)]
        kept = {file.fd for file in files}
        for file in self._opened.values():
            if file.fd not in kept:
                os.close(file.fd)
        self._opened.clear()
        return [(file.fd, file.path) for file in files]

    def close(self) -> None:
        """Close all files."""
        for fd, _ in self.take(tuple(self._opened)):
            os.close(fd)
