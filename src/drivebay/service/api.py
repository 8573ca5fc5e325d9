"""The Python package's functions: the service with plain arguments. `drivebay` exports them.

All raise `StorageError`. These arguments mean the same everywhere:

* ``format``: the image's format ("vdi", "raw"), where its content shall not decide;
* ``search``: folders (with all below) and files where parents may be, beside the image's own folder;
* ``allow_stale_parent``: accept a parent that changed behind its child;
* ``cache``: a `CacheMode` or its name: "writeback", "writethrough", "unsafe" or "direct".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode, Finding
from drivebay.service import content, images, serving
from drivebay.service.addresses import address_of
from drivebay.service.disks import open_disk
from drivebay.service.options import OpenOptions, Path

Search = Path | Sequence[Path]

create = images.create_image
checksum = content.checksum
compare = content.compare


def open(
    path: Path,
    *,
    writable: bool = False,
    cache: CacheMode | str = CacheMode.WRITEBACK,
    format: str | None = None,
    search: Search = (),
    allow_stale_parent: bool = False,
) -> Disk:
    """Open an image with all its parents. Close the disk, or use it as a context manager."""
    options = _options(format, search, allow_stale_parent=allow_stale_parent, cache=cache)
    return open_disk(path, options, writable=writable)


def info(path: Path, *, format: str | None = None) -> images.ImageInfo:
    """What an image says about itself. Its parents are not needed, and it may be in use."""
    return images.image_info(path, OpenOptions(format))


def check(path: Path, *, format: str | None = None) -> Sequence[Finding]:
    """What is wrong with an image; its parents are not needed."""
    return images.check_image(path, OpenOptions(format))


def serve(
    *paths: Path,
    socket: Path | None = None,
    listen: str | None = None,
    read_only: bool = False,
    name: str | None = None,
    cache: CacheMode | str = CacheMode.WRITEBACK,
    format: str | None = None,
    search: Search = (),
    allow_stale_parent: bool = False,
) -> AbstractContextManager[str]:
    """Serve images over NBD in a thread while the context lasts; it gives the URL of the first one.

    ``socket`` is the path of a Unix socket, ``listen`` a TCP address ("127.0.0.1:10809"); by default a
    socket in a private folder is made. Exports are called like their files, or ``name``.
    """
    options = _options(format, search, allow_stale_parent=allow_stale_parent, cache=cache)
    address = address_of(socket, listen)
    return serving.serve(paths, options, address=address, read_only=read_only, name=name)


def _options(
    format: str | None, search: Search, *, allow_stale_parent: bool, cache: CacheMode | str
) -> OpenOptions:
    places = (search,) if isinstance(search, str | os.PathLike) else tuple(search)
    return OpenOptions(format, places, allow_stale_parent, _cache_mode(cache))


def _cache_mode(cache: CacheMode | str) -> CacheMode:
    try:
        return CacheMode(cache)
    except ValueError:
        known = ", ".join(mode.value for mode in CacheMode)
        raise StorageError(
            ErrorKind.INVALID, f"there is no cache mode {cache!r}; use one of: {known}", operation="open"
        ) from None
