"""The gate: which files an image may make us open, whatever names it records.

Allowed are files in the folder of the image that names them and below it, files in a folder that the
user granted and below that, and files that the user named. Devices count only where the user granted
or named them. What counts is where a name really leads, symbolic links and ``..`` resolved.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from drivebay.errors import ErrorKind, StorageError

_SHOWN = 200


def is_below(folder: str, path: str) -> bool:
    """Whether the real ``path`` lies in the real ``folder`` or in a folder below it."""
    return os.path.commonpath([folder, path]) == folder


class Gate:
    """The places that the user granted: ``folders`` (with all below) and ``named`` files, as real paths.

    Raises StorageError (NOT_FOUND) for a place that does not exist.
    """

    def __init__(self, search: Sequence[str | os.PathLike[str]] = ()) -> None:
        places = [(os.fspath(entry), os.path.realpath(entry)) for entry in search]
        for entry, real in places:
            _require_existing(entry, real)
        self.folders = [real for _, real in places if os.path.isdir(real)]
        self.named = [real for _, real in places if not os.path.isdir(real)]

    def grants(self, path: str) -> bool:
        """Whether the user granted or named the real ``path``."""
        return path in self.named or any(is_below(folder, path) for folder in self.folders)

    def admit(self, name: str, image: str) -> str:
        """The real path of the file that the image at the path ``image`` calls ``name``.

        Relative names count from the image's folder. Raises StorageError: READ_ONLY for a place that
        nobody granted, CORRUPT for what is no file name at all.
        """
        home = os.path.dirname(os.path.realpath(image))
        try:
            real = os.path.realpath(os.path.join(home, name)) if name else home
            device = _is_device(real)
        except ValueError:
            real, device = home, False
        if real == home:
            raise _no_name(name, image)
        if not (self.grants(real) or (is_below(home, real) and not device)):
            raise _not_granted(name, real, image, "a device" if device else "outside of the image's folder")
        return real


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _require_existing(entry: str, real: str) -> None:
    if not os.path.exists(real):
        raise StorageError(
            ErrorKind.NOT_FOUND,
            "this place to search does not exist; name a folder or an image file",
            path=entry,
            operation="search",
        )


def _no_name(name: str, image: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"it records {name[:_SHOWN]!r} as the name of a file; restore the image from a copy",
        path=image,
        operation="open",
    )


def _not_granted(name: str, real: str, image: str, what: str) -> StorageError:
    place = real if what == "a device" else os.path.dirname(real)
    return StorageError(
        ErrorKind.READ_ONLY,
        f"it names the file {name[:_SHOWN]!r}, which is {real[:_SHOWN]}: {what}, so it was not opened. "
        f"If you trust the image, allow it: --search {place[:_SHOWN]}",
        path=image,
        operation="open",
    )
