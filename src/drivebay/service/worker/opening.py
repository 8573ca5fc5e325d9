"""Opening the disks that a worker serves."""

from __future__ import annotations

from drivebay.chain import open_chain
from drivebay.engine.disk import Disk
from drivebay.service.worker.spec import DiskSpec


def open_disk(spec: DiskSpec) -> Disk:
    """Open the images of ``spec``, and no others. Raises StorageError, and then leaves nothing open."""
    chain = open_chain(
        spec.paths[0],
        writable=spec.writable,
        cache=spec.cache,
        format_name=(spec.formats[0] or None) if spec.formats else None,
        search=spec.paths,
    )
    try:
        disk = Disk(chain.layers, writable=spec.writable, cache=spec.cache)
        if spec.writable:
            disk.verify_writable()  # a guest should not be the first to learn of a damaged table
    except BaseException:
        chain.close()
        raise
    return disk
