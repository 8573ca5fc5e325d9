"""Taking back files that were being made when their maker died, without touching anybody else's."""

from __future__ import annotations

import contextlib
import os
import shutil

from drivebay.chain.file_set import files_of
from drivebay.chain.image import DESCRIPTOR
from drivebay.chain.staging import published, staging_folders


def undo_creation(path: str) -> None:
    """Remove the file, image (with all its files) or empty folder at ``path``, and what was to become it.

    An image's files get their names one by one from a hidden folder (`drivebay.chain.publish`), by hard
    links: which of the names are ours is told by that. Raises OSError.
    """
    folder, name = os.path.split(path)
    asides = staging_folders(folder, name)
    for file in [*(file for aside in asides for file in published(aside)), *_files_of(path)]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
    if os.path.isdir(path) and not os.path.islink(path):
        with contextlib.suppress(OSError):  # not empty: somebody else's
            os.rmdir(path)
    for aside in asides:
        shutil.rmtree(aside, ignore_errors=True)


def _files_of(path: str) -> list[str]:
    """The image's own file last: while it is there, it names the others."""
    folder = os.path.isdir(path)
    if not os.path.lexists(path) or (folder and not os.path.isfile(os.path.join(path, DESCRIPTOR))):
        return []
    return [file for file in files_of(path) if not os.path.isdir(file)]
