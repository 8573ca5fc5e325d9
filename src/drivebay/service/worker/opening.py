"""Opening the images that a worker serves, and locking them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from drivebay.chain import Chain, open_chain
from drivebay.chain.locks import LockMode, lock_file, unlock_file
from drivebay.engine.disk import Disk
from drivebay.engine.source import OpenedLayer
from drivebay.service.worker.spec import DiskSpec


def open_disk(spec: DiskSpec) -> Disk:
    """The disk that ``spec`` tells. Raises StorageError, and then leaves nothing open."""
    chain = open_spec(spec)
    try:
        disk = Disk(chain.layers, writable=spec.writable, cache=spec.cache)
        if spec.writable:
            disk.verify_writable()  # a guest should not be the first to learn of a damaged table
    except BaseException:
        chain.close()
        raise
    return disk


def open_spec(spec: DiskSpec, *, told: bool = False) -> Chain:
    """The images of ``spec``, and no others. Raises StorageError, and then leaves nothing open.

    Who ``told`` to open just these answers for their content, and they aren't locked yet (`lock_layers`).
    """
    top, *parents = [name or None for name in spec.formats] or [None]
    return open_chain(
        spec.paths[0],
        writable=spec.writable,
        cache=spec.cache,
        format_name=top,
        search=[os.path.dirname(path) for path in spec.paths],
        lock=not told,
        allow_stale_parent=told,  # the two records of a merge's beginning may not agree yet
        shared=spec.shared,
        parents=spec.paths[1:],
        parent_formats=parents,
        reading=LockMode.SERVE,
    )


def lock_layers(layers: Iterable[OpenedLayer], spec: DiskSpec, *, top: OpenedLayer) -> None:
    """Lock layers of a chain that were opened without, as `open_spec` would have. Raises StorageError."""
    writing = LockMode.SHARED if spec.shared else LockMode.WRITE
    for layer in layers:
        for source in layer.sources:
            mode = writing if spec.writable and layer is top else LockMode.SERVE
            lock_file(source.fd, source.path, mode, merging=True)


def unlock_layers(layers: Iterable[OpenedLayer]) -> None:
    """Give up the locks of layers that stay open."""
    for layer in layers:
        for source in layer.sources:
            unlock_file(source.fd)
