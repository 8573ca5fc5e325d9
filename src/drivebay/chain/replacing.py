"""A small file of an image, written anew: after a crash its name leads to the old content or to the new.

The new file is made in a hidden folder beside its place, as new images are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from drivebay.chain.apply import sync_folder
from drivebay.chain.files import ImageFile
from drivebay.chain.locks import LockMode, lock_file
from drivebay.chain.staging import staging_folder
from drivebay.engine.source import FileSource
from drivebay.errors import from_os_error

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def replace_content(file: ImageFile, data: bytes) -> None:
    """Let ``file``, opened writable, hold ``data``: a new file takes the old one's name, durably.

    Owner, mode and extended attributes stay. ``file`` is the new one from then on, under the same
    descriptor, locked all along; who waits for the old one's lock finds that it was replaced. Raises
    StorageError, with the old content in place.
    """
    place = os.path.realpath(file.path)
    folder, name = os.path.split(place)
    with _hidden_folder(folder, name) as aside:
        path = os.path.join(aside, name)
        try:
            fd = os.open(path, _NEW, 0o600)
            try:
                _fill(fd, path, data, place)
                os.replace(path, place)
                os.dup2(fd, file.fd, inheritable=False)
            finally:
                os.close(fd)
            sync_folder(folder)
        except OSError as error:
            raise from_os_error(error, "replace", path=file.path) from error
    file.measure()


@contextlib.contextmanager
def _hidden_folder(folder: str, name: str) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        try:
            aside = stack.enter_context(staging_folder(folder, name))
        except OSError as error:
            raise from_os_error(error, f"make a new {name} in its folder", path=folder) from error
        yield aside


def _fill(fd: int, path: str, data: bytes, like: str) -> None:
    """The content, all else as of the file ``like``, and a lock, before the file can be found."""
    source = FileSource(fd, path, writable=True)
    source.write(data, 0)
    status = os.stat(like)
    with contextlib.suppress(PermissionError):  # only root gives files away
        os.fchown(fd, status.st_uid, status.st_gid)
    shutil.copystat(like, path)
    os.utime(fd)
    lock_file(fd, path, LockMode.WRITE)
    source.sync()
