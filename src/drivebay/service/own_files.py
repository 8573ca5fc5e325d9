"""Files that belong to one medium alone: only those may be deleted or moved with it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from drivebay.chain.file_set import FileSet, file_set
from drivebay.chain.image import image_file
from drivebay.errors import ErrorKind, StorageError
from drivebay.registry.medium import Medium


def require_own_files(media: Iterable[Medium], medium: Medium, files: FileSet, operation: str) -> None:
    """Raises STATE where one of ``media`` has a further file of ``medium``, too.

    That happens when an image without a UUID is copied, but not what it names.
    """
    for other in media if files.further else ():
        if other.uuid == medium.uuid:
            continue
        shared = set(files.further) & _files_of(other)
        if shared:
            message = (
                f"its file {min(shared)} belongs to {other.path}, too; drivebay medium close takes one of "
                "the two off the registry without touching files"
            )
            raise StorageError(ErrorKind.STATE, message, path=medium.path, operation=operation)


def _files_of(medium: Medium) -> set[str]:
    try:
        return {image_file(os.path.realpath(medium.path)), *file_set(medium.path, medium.format).further}
    except StorageError:  # missing or damaged: nothing is known to be its own
        return set()
