"""The images in folders, by what their headers say; raw files, which say nothing, are left out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from drivebay.chain.file_set import FileSet, file_set
from drivebay.chain.image import DESCRIPTOR
from drivebay.errors import StorageError
from drivebay.registry.trash import BESIDE
from drivebay.service.media_state import own_uuid

_MOST = 200_000  # entries: a scan that was pointed at "/" must end


@dataclass(frozen=True, slots=True)
class Found:
    """An image that a scan found; ``uuid`` is its own, if its format has one."""

    path: str
    files: FileSet
    uuid: UUID | None


def scan_images(folders: Iterable[str], *, recursive: bool = True) -> list[Found]:
    """All images in these folders, by path; what is only a part of another image is no image."""
    found = [image for path in walk_files(folders, recursive=recursive) if (image := _read(path))]
    parts = {part for image in found for part in image.files.further}
    unique = {image.path: image for image in found if image.path not in parts}
    return [unique[path] for path in sorted(unique)]


def walk_files(folders: Iterable[str], *, recursive: bool = True) -> Iterator[str]:
    """The regular files in these folders, as real paths; hidden folders (trash, staging) are left out."""
    left = _MOST
    seen: set[str] = set()
    for top in dict.fromkeys(map(os.path.realpath, folders)):
        for folder, below, names in os.walk(top):
            if folder in seen:
                below.clear()
                continue
            seen.add(folder)
            below[:] = (
                [name for name in sorted(below) if not name.startswith(".")]
                if recursive
                else _bundles(folder, below)
            )
            for name in sorted(names):
                left -= 1
                if left < 0:
                    return
                if _is_regular(os.path.join(folder, name)):
                    yield os.path.join(folder, name)


def _bundles(folder: str, below: list[str]) -> list[str]:
    return [name for name in below if os.path.isfile(os.path.join(folder, name, DESCRIPTOR))]


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _read(path: str) -> Found | None:
    try:
        files = file_set(path)
    except StorageError:
        return None
    if files.facts.format == "raw":
        return None
    return Found(files.path, files, own_uuid(files.facts, path))


def is_discarded(path: str, trash: str) -> bool:
    """Whether a file lies in a trash."""
    return BESIDE in path.split(os.sep) or path.startswith(trash + os.sep)
