"""Virtual disks of virtual machines: VirtualBox's images and differencing chains, opened, made and served.

::

    import drivebay

    drivebay.create("base.vdi", size="10G")
    drivebay.create("child.vdi", parent="base.vdi")
    with drivebay.open("child.vdi", writable=True) as disk:
        disk.write(0, b"hello")
        for extent in disk.extents():
            print(extent.start, extent.length, extent.state)
    with drivebay.serve("child.vdi") as url:
        ...  # any NBD client can use it

Everything that is public is listed in ``__all__``; every failure is a `StorageError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drivebay.blockmap import RepairStep
    from drivebay.engine.disk import Disk
    from drivebay.engine.stats import DiskStats
    from drivebay.errors import ErrorKind, StorageError
    from drivebay.model import (
        CacheMode,
        Extent,
        ExtentState,
        Finding,
        Geometry,
        ImageFacts,
        Part,
        Severity,
    )
    from drivebay.service.api import (
        check,
        checksum,
        compare,
        create,
        edit,
        info,
        list_formats,
        open,
        repair,
        serve,
    )
    from drivebay.service.content import Comparison
    from drivebay.service.edit import Repair
    from drivebay.service.format_options import FormatInfo, OptionInfo
    from drivebay.service.images import ImageInfo

# Where each public name lives; it is imported when it is first used, so that commands start fast.
_HOMES = {
    "CacheMode": "drivebay.model",
    "Comparison": "drivebay.service.content",
    "Disk": "drivebay.engine.disk",
    "DiskStats": "drivebay.engine.stats",
    "ErrorKind": "drivebay.errors",
    "Extent": "drivebay.model",
    "ExtentState": "drivebay.model",
    "Finding": "drivebay.model",
    "FormatInfo": "drivebay.service.format_options",
    "Geometry": "drivebay.model",
    "ImageFacts": "drivebay.model",
    "ImageInfo": "drivebay.service.images",
    "OptionInfo": "drivebay.service.format_options",
    "Part": "drivebay.model",
    "Repair": "drivebay.service.edit",
    "RepairStep": "drivebay.blockmap",
    "Severity": "drivebay.model",
    "StorageError": "drivebay.errors",
    "check": "drivebay.service.api",
    "checksum": "drivebay.service.api",
    "compare": "drivebay.service.api",
    "create": "drivebay.service.api",
    "edit": "drivebay.service.api",
    "info": "drivebay.service.api",
    "list_formats": "drivebay.service.api",
    "open": "drivebay.service.api",
    "repair": "drivebay.service.api",
    "serve": "drivebay.service.api",
}

__all__ = [
    "CacheMode",
    "Comparison",
    "Disk",
    "DiskStats",
    "ErrorKind",
    "Extent",
    "ExtentState",
    "Finding",
    "FormatInfo",
    "Geometry",
    "ImageFacts",
    "ImageInfo",
    "OptionInfo",
    "Part",
    "Repair",
    "RepairStep",
    "Severity",
    "StorageError",
    "check",
    "checksum",
    "compare",
    "create",
    "edit",
    "info",
    "list_formats",
    "open",
    "repair",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("drivebay")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
