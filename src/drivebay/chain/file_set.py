"""All files that an image consists of."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from drivebay.chain.image import DESCRIPTOR, image_file
from drivebay.chain.resolve import close_layers, open_layer
from drivebay.errors import StorageError
from drivebay.model import ImageFacts


@dataclass(frozen=True, slots=True)
class FileSet:
    """An image as files: ``path`` (its own, or its folder) and those that it names, all real paths.

    ``names`` are the further files' names as the image records them, in the order of ``further``. Sizes
    in bytes: how long the files are, and what they take on the host.
    """

    path: str
    facts: ImageFacts
    further: tuple[str, ...]
    names: tuple[str, ...]
    file_size: int
    disk_usage: int

    @property
    def is_bundle(self) -> bool:
        """Whether the image is a folder."""
        return os.path.isdir(self.path)

    @property
    def removable(self) -> list[str]:
        """What deleting the image removes, in an order that is safe to be interrupted: the image last."""
        own = [image_file(self.path)] if self.is_bundle else []
        return [*self.further, *own, self.path]

    @property
    def is_device(self) -> bool:
        """Whether any of it is a block device, which can't be deleted or moved."""
        return any(stat.S_ISBLK(os.stat(file).st_mode) for file in (image_file(self.path), *self.further))


def file_set(path: str, format_name: str | None = None) -> FileSet:
    """The files of the image at ``path``, its parents' aside; no locks are taken. Raises StorageError."""
    opened = open_layer(path, format_name, lock=False)
    try:
        usage = sum(os.fstat(source.fd).st_blocks * 512 for source in opened.sources)
        size = sum(source.size for source in opened.sources)
        files = [os.path.realpath(source.path) for source in opened.sources]
        return FileSet(
            _folder_or_file(files[0]),
            opened.layer.facts,
            tuple(files[1:]),
            tuple(opened.layer.sources),
            size,
            usage,
        )
    finally:
        close_layers([opened])


def files_of(path: str, format_name: str | None = None) -> list[str]:
    """As `FileSet.removable`, for what may be damaged: then it is the file itself."""
    try:
        return file_set(path, format_name).removable
    except StorageError:
        return [path]


def _folder_or_file(path: str) -> str:
    return os.path.dirname(path) if os.path.basename(path) == DESCRIPTOR else path
