"""The Python package's functions: the service with plain arguments. `drivebay` exports them.

All raise `StorageError`. These arguments mean the same everywhere:

* ``format``: the image's format ("vdi", "raw"), where its content shall not decide;
* ``search``: folders (with all below) and files where parents, and further files of an image, may be,
  beside the image's own folder;
* ``part``: a snapshot in the image's file (`ImageFacts.parts`), where that is meant;
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
from drivebay.service import content, format_options, images, serving
from drivebay.service import edit as changes
from drivebay.service.addresses import address_of
from drivebay.service.disks import open_disk
from drivebay.service.options import OpenOptions, Path

Search = Path | Sequence[Path]

create = images.create_image
checksum = content.checksum
compare = content.compare
list_formats = format_options.list_formats


def open(
    path: Path,
    *,
    writable: bool = False,
    cache: CacheMode | str = CacheMode.WRITEBACK,
    format: str | None = None,
    search: Search = (),
    allow_stale_parent: bool = False,
    part: str = "",
) -> Disk:
    """Open an image with all its parents. Close the disk, or use it as a context manager."""
    options = _options(format, search, allow_stale_parent=allow_stale_parent, cache=cache, part=part)
    return open_disk(path, options, writable=writable)


def info(path: Path, *, format: str | None = None, search: Search = (), part: str = "") -> images.ImageInfo:
    """What an image says about itself. Its parents are not needed, and it may be in use."""
    return images.image_info(path, _options(format, search, part=part))


def check(path: Path, *, format: str | None = None, search: Search = ()) -> Sequence[Finding]:
    """What is wrong with an image; its parents are not needed."""
    return images.check_image(path, _options(format, search))


def repair(
    path: Path,
    *,
    apply: bool = False,
    allow_loss: bool = False,
    format: str | None = None,
    search: Search = (),
) -> changes.Repair:
    """What would repair an image; with ``apply`` it is done. What loses data needs ``allow_loss``, too.

    The steps in the answer are what is to be done, or was done: none for a sound image.
    """
    return changes.repair_image(path, _options(format, search), apply=apply, allow_loss=allow_loss)


def edit(path: Path, *, format: str | None = None, search: Search = (), **fields: object) -> images.ImageInfo:
    """Change fields of an image's header, as far as its format has them; no data change.

    ``uuid``, ``modification``, ``parent_uuid`` and ``parent_modification`` are UUIDs, "random" or "none";
    ``parent`` is the path of an image, of which everything is recorded that the format records;
    ``parent_path``, ``parent_format`` and ``comment`` are text; ``geometry`` and ``bios_geometry`` are
    cylinders, heads and sectors, as text like "1024,16,63", or "none". The answer is what it says then.
    """
    text = {name.replace("_", "-"): str(value) for name, value in fields.items()}
    return changes.edit_image(path, text, _options(format, search))


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
    format: str | None,
    search: Search,
    *,
    allow_stale_parent: bool = False,
    cache: CacheMode | str = CacheMode.WRITEBACK,
    part: str = "",
) -> OpenOptions:
    places = (search,) if isinstance(search, str | os.PathLike) else tuple(search)
    return OpenOptions(format, places, allow_stale_parent, _cache_mode(cache), part)


def _cache_mode(cache: CacheMode | str) -> CacheMode:
    try:
        return CacheMode(cache)
    except ValueError:
        known = ", ".join(mode.value for mode in CacheMode)
        raise StorageError(
            ErrorKind.INVALID, f"there is no cache mode {cache!r}; use one of: {known}", operation="open"
        ) from None
