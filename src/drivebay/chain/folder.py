"""The images in a folder, by UUID: read once, heads only, however many files there are."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

from drivebay.blockmap import Layer
from drivebay.chain.files import ImageFile, open_file
from drivebay.errors import StorageError
from drivebay.formats import format_named, probe
from drivebay.model import NULL_UUID, ImageFacts

_HEAD_LENGTH = 4096
_TAIL_LENGTH = 512
_ENTRIES = 200_000  # a search that was pointed at "/" must end


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that could be a parent."""

    path: str
    facts: ImageFacts

    @property
    def named_by_file(self) -> bool:
        """Whether the file holds no identity of its own: its UUID is made from its name (version 5)."""
        return self.facts.modification_uuid == NULL_UUID and self.facts.uuid.version == 5


def read_layer(fd: int, path: str, format_name: str | None = None) -> Layer:
    """The layer in an opened file; the content decides the format unless it is given."""
    file = ImageFile(fd, path)
    if format_name is not None:
        return format_named(format_name).open(file)
    head = file.read(0, _HEAD_LENGTH)
    tail = file.read(max(file.size - _TAIL_LENGTH, 0), _TAIL_LENGTH)
    return probe(head, tail, path).open(file)


def read_candidate(path: str) -> Candidate:
    """What the file at ``path``, which must be no link, says about itself. Raises StorageError."""
    fd = open_file(path, writable=False, follow=False)
    try:
        return Candidate(path, read_layer(fd, path).facts)
    finally:
        os.close(fd)


class Folder:
    """One folder to look in, ``recursive`` with all below it; symbolic links to folders are not followed."""

    def __init__(self, path: str, *, recursive: bool) -> None:
        self.path = path
        self.recursive = recursive
        self.unreadable: list[str] = []
        self._complete = True
        self._images: dict[UUID, list[Candidate]] | None = None

    def grants(self, path: str) -> bool:
        """Whether the (real) ``path`` lies in this folder, so that it may be opened."""
        if self.recursive:
            return os.path.commonpath([self.path, path]) == self.path
        return os.path.dirname(path) == self.path

    def describe(self) -> str:
        """The folder as a message names it."""
        below = " and below" if self.recursive else ""
        partly = f", only its first {_ENTRIES} entries" if not self._complete else ""
        return f"{self.path}{below}{partly}"

    def images(self, granted: Callable[[str], bool]) -> dict[UUID, list[Candidate]]:
        """The images by UUID; a symbolic link is one of them if ``granted`` says so of what it leads to."""
        if self._images is None:
            self._images = self._read(granted)
        return self._images

    def _read(self, granted: Callable[[str], bool]) -> dict[UUID, list[Candidate]]:
        images: dict[UUID, list[Candidate]] = {}
        for path in self._regular_files(granted):
            try:
                candidate = read_candidate(path)
            except StorageError as error:
                self.unreadable.append(str(error))
            else:
                images.setdefault(candidate.facts.uuid, []).append(candidate)
        return images

    def _regular_files(self, granted: Callable[[str], bool]) -> Iterator[str]:
        seen: set[tuple[int, int]] = set()
        for entry in self._entries():
            path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            identity = _regular_file(path)
            if identity is None or identity in seen or not (path == entry.path or granted(path)):
                continue
            seen.add(identity)
            yield path

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        folders = [self.path]
        left = _ENTRIES
        while folders:
            for entry in _list(folders.pop()):
                left -= 1
                if left < 0:
                    self._complete = False
                    return
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif self.recursive:
                    folders.append(entry.path)


def _regular_file(path: str) -> tuple[int, int] | None:
    """What tells a regular file from all others, by whatever name; ``None`` for anything else."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _list(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # a folder that can't be read grants nothing
        return []
