"""New files that appear together, whole and durable, or not at all.

They are written into a hidden folder beside their place, and then get their names: the image's further
files first, the image last. A name ``FOLDER/FILE`` makes the image a folder, which appears by one rename.
An image that is made anew takes the old one's place by one rename, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator

from drivebay.blockmap import FileChange
from drivebay.chain.apply import Progress, apply_change, sync_folder
from drivebay.chain.staging import staging_folder
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError, from_os_error

_NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_image(path: str, changes: Iterable[FileChange], progress: Progress | None = None) -> None:
    """Apply ``changes`` to empty files and give them their names, which must be free.

    The image itself is called ``path``; ``progress`` is told of the host's space being reserved. Raises
    StorageError.
    """
    try:
        _require_free(path)
        with _staging(path) as staging:
            for change in changes:
                apply_change(staging.source(change.file), change, progress)
            staging.publish()
    except OSError as error:
        raise from_os_error(error, "create", path=path) from error


def replace_image(path: str, changes: Iterable[FileChange]) -> None:
    """As `write_image`, but the image is made anew, and takes the place of the one at the real ``path``.

    Its further files are new ones. A crash leaves the old image whole, and at most files that it doesn't
    name. Raises StorageError.
    """
    try:
        with _staging(path) as staging:
            for change in changes:
                apply_change(staging.source(change.file), change)
            staging.replace()
    except OSError as error:
        raise from_os_error(error, "write", path=path) from error


def _require_free(path: str) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


@contextlib.contextmanager
def _staging(path: str) -> Iterator[_Staging]:
    folder, name = os.path.split(path)
    with staging_folder(folder, name) as aside:
        staging = _Staging(folder, name, aside)
        try:
            yield staging
        finally:
            staging.close()


class _Staging:
    """The files in the hidden folder ``aside``, by the names that the format gives them."""

    def __init__(self, folder: str, name: str, aside: str) -> None:
        self._folder = folder
        self._name = name
        self._aside = aside
        self._sources: dict[str, FileSource] = {}

    def close(self) -> None:
        """Close the files."""
        for source in self._sources.values():
            source.close()

    def source(self, name: str) -> FileSource:
        """The file that the format calls ``name``."""
        name = name or self._name
        if name not in self._sources:
            self._sources[name] = self._create(name)
        return self._sources[name]

    def _create(self, name: str) -> FileSource:
        folder, plain = os.path.split(name)
        if folder not in ("", self._name) or plain in ("", ".", ".."):
            raise StorageError(
                ErrorKind.INVALID,
                f"a file of the image can't be called {name!r}; choose another name for the image",
                path=os.path.join(self._folder, self._name),
                operation="create",
            )
        if folder:
            os.makedirs(os.path.join(self._aside, folder), exist_ok=True)
        path = os.path.join(self._aside, name)
        return FileSource(os.open(path, os.O_RDWR | _NEW, 0o666), path, writable=True)

    def _sync(self) -> None:
        for source in self._sources.values():
            source.sync()

    def publish(self) -> None:
        """Give all files their names, which must be free."""
        self._sync()
        bundle = os.path.join(self._aside, self._name)
        if os.path.isdir(bundle):
            sync_folder(bundle)
            _require_free(os.path.join(self._folder, self._name))
            os.rename(bundle, os.path.join(self._folder, self._name))
        else:
            self._publish_files(sorted(self._sources, key=self._name.__eq__))  # the image itself comes last
        sync_folder(self._folder or ".")

    def replace(self) -> None:
        """Give the further files their names, which must be free, and then the image that of the old one."""
        self._sync()
        names = [name for name in self._sources if name != self._name]
        aside, place = os.path.join(self._aside, self._name), os.path.join(self._folder, self._name)
        shutil.copymode(place, aside)
        self._publish_files(names)
        try:
            sync_folder(self._folder or ".")
            os.replace(aside, place)
        except OSError:  # nothing else: after an interruption, the image may have its name already
            _unlink([os.path.join(self._folder, name) for name in names])
            raise
        sync_folder(self._folder or ".")

    def _publish_files(self, names: Iterable[str]) -> None:
        published: list[str] = []
        try:
            for name in names:
                path = os.path.join(self._folder, name)
                _publish(os.path.join(self._aside, name), path)
                published.append(path)
        except BaseException:
            _unlink(published)
            raise


def _unlink(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _publish(aside: str, path: str) -> None:
    try:
        _give_name(aside, path)
    except OSError as error:
        raise from_os_error(error, "create", path=path) from error


def _give_name(aside: str, path: str) -> None:
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here: take the name with an empty file, then put the image in its place.
        os.close(os.open(path, os.O_WRONLY | _NEW))
        os.rename(aside, path)
