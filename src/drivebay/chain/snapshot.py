"""Snapshots within an image: it keeps its newest state, and gets an empty one on top of that."""

from __future__ import annotations

import os
from uuid import uuid4

from drivebay.chain.image import image_file
from drivebay.chain.publish import replace_image
from drivebay.chain.resolve import open_image
from drivebay.errors import ErrorKind, StorageError


def is_same_image(path: str, other: str) -> bool:
    """Whether there is an image at both paths, and it is the same one."""
    try:
        return os.path.samefile(image_file(path), image_file(other))
    except (OSError, ValueError):
        return False


def snapshot_image(path: str, format_name: str | None = None) -> None:
    """Put an empty state on top of the newest one, which is kept; refused while somebody has the image open.

    A crash leaves the image as it was or as it shall be. Raises StorageError.
    """
    with open_image(path, format_name, writable=True) as image:
        if image.format.snapshot is None:
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"a {image.format.name} image can't be its own parent; give the child another name",
                path=path,
                operation="create",
            )
        changes = image.format.snapshot(image.files, image.layer, uuid4())
        replace_image(os.path.realpath(image.files.path), changes)
