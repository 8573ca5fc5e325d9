"""One image, opened: its own file and those that it names, locked, and the layer that they make."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType

from drivebay.blockmap import Format, Layer
from drivebay.chain.files import ImageFile, open_file
from drivebay.chain.gate import Gate
from drivebay.chain.locks import LockMode, lock_file
from drivebay.engine.direct import DirectSource
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import format_named, probe
from drivebay.model import CacheMode

HEAD_LENGTH = 4096
TAIL_LENGTH = 512
DESCRIPTOR = "DiskDescriptor.xml"  # what the image is where a folder is one (Parallels' bundles)

FileIdentity = tuple[int, int]  # device and inode: one file, by whatever name


@dataclass(frozen=True, slots=True)
class Access:
    """How an image's files are opened.

    Without ``follow`` the image must be no symbolic link; without ``lock`` nothing is locked; with
    ``shared`` others may write it, too. Files in ``held`` are locked already by whoever opens this image,
    too: one file may hold several images. ``reading`` is how files are locked that aren't written.
    """

    gate: Gate
    writable: bool = False
    lock: bool = True
    shared: bool = False
    follow: bool = True
    held: Collection[FileIdentity] = ()
    reading: LockMode = LockMode.READ

    @property
    def mode(self) -> LockMode:
        """How the files are locked."""
        if not self.lock:
            return LockMode.NONE
        if self.shared:
            return LockMode.SHARED
        return LockMode.WRITE if self.writable else self.reading


def image_file(path: str) -> str:
    """The file that is meant by ``path``: the descriptor, where that is a folder which holds one."""
    descriptor = os.path.join(path, DESCRIPTOR)
    return descriptor if os.path.isdir(path) and os.path.isfile(descriptor) else path


class ImageFiles:
    """The files of one image. Closing it closes those that nobody took."""

    def __init__(self, path: str, access: Access, part: str = "") -> None:
        self._access = access
        self._opened: dict[str, ImageFile] = {}
        self.image = self._open(path, os.path.realpath(path), part=part, follow=access.follow)

    def _open(self, path: str, real: str, *, follow: bool, part: str = "") -> ImageFile:
        fd = open_file(path, writable=self._access.writable, follow=follow)
        try:
            if self._access.lock and identity_of(fd) not in self._access.held:
                lock_file(fd, path, self._access.mode)
                _check_current(fd, path)
            file = ImageFile(fd, path, self.beside, part=part)
        except BaseException:
            os.close(fd)
            raise
        self._opened[real] = file
        return file

    def beside(self, name: str) -> ImageFile:
        """As `drivebay.blockmap.Files.beside`."""
        real = self._access.gate.admit(name, self.image.path)
        return self._opened.get(real) or self._open(real, real, follow=False)

    def take(self, layer: Layer, cache: CacheMode) -> tuple[FileSource, ...]:
        """The sources of ``layer``, which the caller closes; all other files are closed."""
        files = [self.image, *map(self.beside, layer.sources)]
        if len({file.fd for file in files}) < len(files):
            raise StorageError(
                ErrorKind.CORRUPT,
                "it names the same file twice as a part of itself; restore the image from a copy",
                path=self.image.path,
                operation="open",
            )
        kind = DirectSource if cache is CacheMode.DIRECT else FileSource
        writable = self._access.writable
        if layer.replay and not writable:
            first = _replayed(self.image, layer)
        else:
            first = kind(self.image.fd, self.image.path, writable=writable)
        sources = (first, *(kind(file.fd, file.path, writable=writable) for file in files[1:]))
        self._opened = {real: file for real, file in self._opened.items() if file not in files}
        self.close()
        return sources

    def close(self) -> None:
        """Close all files that nobody took, and so give up their locks."""
        while self._opened:
            os.close(self._opened.popitem()[1].fd)


class OpenedImage:
    """An image's files, its format and its layer. A context manager that closes the files."""

    def __init__(self, path: str, access: Access, *, format_name: str | None = None, part: str = "") -> None:
        self._all = ImageFiles(image_file(path), access, part)
        try:
            self.files = self._all.image
            self.format = _format_of(self.files, format_name)
            self.layer: Layer = self.format.open(self.files)
            if access.writable and self.layer.replay:
                self._replay()
        except BaseException:
            self._all.close()
            raise

    def _replay(self) -> None:
        from drivebay.chain.replay import replay_log  # brings numpy, which opening does without

        replay_log(FileSource(self.files.fd, self.files.path, writable=True), self.layer.replay)
        self.files.measure()
        self.layer = self.format.open(self.files)

    @property
    def identity(self) -> tuple[FileIdentity, str]:
        """What tells this image from all others."""
        return identity_of(self.files.fd), self.files.part

    def take(self, cache: CacheMode) -> OpenedLayer:
        """The layer with its sources, which the caller closes."""
        return OpenedLayer(self.layer, self._all.take(self.layer, cache))

    def __enter__(self) -> OpenedImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.close()


def _replayed(file: ImageFile, layer: Layer) -> FileSource:
    from drivebay.chain.replay import ReplayedSource

    return ReplayedSource(file.fd, file.path, layer.replay)


def _format_of(file: ImageFile, format_name: str | None) -> Format:
    if format_name is not None:
        return format_named(format_name)
    head = file.read(0, HEAD_LENGTH)
    tail = file.read(max(file.size - TAIL_LENGTH, 0), TAIL_LENGTH)
    return probe(head, tail, file.path)


def _check_current(fd: int, path: str) -> None:
    """Whether the locked file is still that of the name: a snapshot replaces a bundle's descriptor."""
    try:
        status = os.stat(path)
        current = (status.st_dev, status.st_ino) == identity_of(fd)
    except OSError:
        current = False
    if not current:
        raise StorageError(
            ErrorKind.STATE,
            "somebody replaced this file while it was opened; try again",
            path=path,
            operation="open",
        )


def identity_of(fd: int) -> FileIdentity:
    """What tells the file behind ``fd`` from all others."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
