"""The images in a folder, by UUID: read once, heads only, however many files there are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from drivebay.chain.candidate import Candidate, Key, read_candidate
from drivebay.chain.gate import Gate, is_below
from drivebay.errors import StorageError

_ENTRIES = 200_000  # a search that was pointed at "/" must end


class Folder:
    """One folder to look in, ``recursive`` with all below it; symbolic links to folders are not followed."""

    def __init__(self, path: str, gate: Gate, *, recursive: bool) -> None:
        self.path = path
        self.recursive = recursive
        self._gate = gate
        self.unreadable: list[StorageError] = []
        self._complete = True
        self._images: dict[Key, list[Candidate]] | None = None

    def describe(self) -> str:
        """The folder as a message names it."""
        below = " and below" if self.recursive else ""
        partly = f", only its first {_ENTRIES} entries" if not self._complete else ""
        return f"{self.path}{below}{partly}"

    def find(self, key: Key) -> list[Candidate]:
        """The images with this key; a symbolic link is one of them if it leads to where one may look."""
        if self._images is None:
            self._images = self._read()
        return self._images.get(key, [])

    def _read(self) -> dict[Key, list[Candidate]]:
        images: dict[Key, list[Candidate]] = {}
        for path in self._regular_files():
            try:
                candidate = read_candidate(path, self._gate)
            except StorageError as error:
                self.unreadable.append(error)
            else:
                for key in candidate.keys:
                    images.setdefault(key, []).append(candidate)
        return images

    def _regular_files(self) -> Iterator[str]:
        seen: set[tuple[int, int]] = set()
        for entry in self._entries():
            path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            identity = _regular_file(path)
            if identity is None or identity in seen or not (path == entry.path or self._may_open(path)):
                continue
            seen.add(identity)
            yield path

    def _may_open(self, path: str) -> bool:
        here = is_below(self.path, path) if self.recursive else os.path.dirname(path) == self.path
        return here or self._gate.grants(path)

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
