"""Taking back files that were being made when their maker died, without touching anybody else's."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil

from drivebay.chain.file_set import files_of
from drivebay.chain.image import DESCRIPTOR


def undo_creation(path: str) -> None:
    """Remove the file, image (with all its files) or empty folder at ``path``, and what was to become it.

    An image's files get their names one by one from a hidden folder (`drivebay.chain.publish`), by hard
    links: which of the names are ours is told by that. Raises OSError.
    """
    folder, name = os.path.split(path)
    asides = glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name[:200])}.{'[0-9a-f]' * 8}.new"))
    for file in [*(file for aside in asides for file in _published(aside)), *_files_of(path)]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
    if os.path.isdir(path) and not os.path.islink(path):
        with contextlib.suppress(OSError):  # not empty: somebody else's
            os.rmdir(path)
    for aside in asides:
        shutil.rmtree(aside, ignore_errors=True)


def undo_staging(aside: str) -> None:
    """Remove a hidden folder, and, unless the image itself has its name already, the names of its files."""
    published = _published(aside)
    if len(published) < len(os.listdir(aside)):
        for file in published:
            os.unlink(file)
    shutil.rmtree(aside, ignore_errors=True)


def staging_folders(folder: str) -> list[str]:
    """The hidden folders in which new images are, or were, being made."""
    return glob.glob(os.path.join(glob.escape(folder), f".*.{'[0-9a-f]' * 8}.new"))


def _published(aside: str) -> list[str]:
    """The names in the folder beside that files of ``aside`` have already."""
    folder = os.path.dirname(aside)
    published = []
    for name in os.listdir(aside):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(os.path.join(aside, name)), os.lstat(path)):
                published.append(path)
    return published


def _files_of(path: str) -> list[str]:
    """The image's own file last: while it is there, it names the others."""
    folder = os.path.isdir(path)
    if not os.path.lexists(path) or (folder and not os.path.isfile(os.path.join(path, DESCRIPTOR))):
        return []
    return [file for file in files_of(path) if not os.path.isdir(file)]
