"""Hidden folders in which files are made before they get their names.

Who makes something holds a lock on its folder. A folder that nobody holds is what a killed maker left; the
next who makes a file of that name takes it away.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator

_LONGEST = 200  # bytes of a name; with what is added, file systems take it


@contextlib.contextmanager
def staging_folder(folder: str, name: str) -> Iterator[str]:
    """A new hidden folder in ``folder``, for what shall be called ``name``. Raises OSError."""
    for aside in staging_folders(folder, name):
        _remove_abandoned(aside)
    aside, held = _make(folder, name)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(held)


def staging_folders(folder: str, name: str | None = None) -> list[str]:
    """The hidden folders in which files (called ``name``) are, or were, being made."""
    stem = "*" if name is None else glob.escape(_shortened(name))
    return glob.glob(os.path.join(glob.escape(folder), f".{stem}.{'[0-9a-f]' * 8}.new"))


def is_held(aside: str) -> bool:
    """Whether somebody is making files in a hidden folder, as far as can be told."""
    try:
        fd = _open(aside)
    except OSError:
        return False
    try:
        _lock(fd)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def undo_staging(aside: str) -> None:
    """Remove a hidden folder, and, unless the image itself got its name, the names of its files."""
    if _is_unfinished(aside):
        for file in published(aside):
            os.unlink(file)
    shutil.rmtree(aside, ignore_errors=True)


def published(aside: str) -> list[str]:
    """The names in the folder beside that files of ``aside`` have already."""
    found = []
    for file, path in _names(aside):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(file), os.lstat(path)):
                found.append(path)
    return found


def _is_unfinished(aside: str) -> bool:
    """Whether a file never got its name; one that has another name by now was moved by its owner."""
    return any(not os.path.lexists(path) and os.lstat(file).st_nlink == 1 for file, path in _names(aside))


def _names(aside: str) -> list[tuple[str, str]]:
    """Each file of ``aside``, there and where it shall be."""
    folder = os.path.dirname(aside)
    return [(os.path.join(aside, name), os.path.join(folder, name)) for name in os.listdir(aside)]


def _shortened(name: str) -> str:
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name


def _make(folder: str, name: str) -> tuple[str, int]:
    """A new folder, and the descriptor that holds it."""
    while True:
        aside = os.path.join(folder, f".{_shortened(name)}.{secrets.token_hex(4)}.new")
        os.mkdir(aside)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # taken for abandoned meanwhile
            return aside, _hold_new(aside)


def _hold_new(aside: str) -> int:
    fd = _open(aside)
    try:
        _lock(fd)
        if not os.path.samestat(os.fstat(fd), os.lstat(aside)):
            raise FileNotFoundError(aside)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _remove_abandoned(aside: str) -> None:
    """Remove what a killed process of this user left; where there are no locks, nobody can tell."""
    with contextlib.suppress(OSError):
        fd = _open(aside)
        try:
            if os.fstat(fd).st_uid == os.geteuid() and _lock(fd):
                undo_staging(aside)
        finally:
            os.close(fd)


def _open(aside: str) -> int:
    return os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _lock(fd: int) -> bool:
    """Hold the folder; whether its file system has such locks. Raises BlockingIOError if it is held."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
