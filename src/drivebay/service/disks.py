"""Disks: chains of images, opened."""

from __future__ import annotations

from drivebay.chain import open_chain
from drivebay.engine.disk import Disk
from drivebay.service.options import DEFAULT, OpenOptions, Path


def open_disk(path: Path, options: OpenOptions = DEFAULT, *, writable: bool = False) -> Disk:
    """Open the image at ``path`` with its parents. Raises StorageError, and then leaves nothing open."""
    chain = open_chain(
        path,
        part=options.part,
        writable=writable,
        cache=options.cache,
        format_name=options.format,
        search=options.search,
        allow_stale_parent=options.allow_stale_parent,
        shared=options.shared,
        parents=options.parents,
        parent_formats=options.parent_formats,
    )
    try:
        return Disk(chain.layers, writable=writable, cache=options.cache)
    except BaseException:
        chain.close()
        raise
