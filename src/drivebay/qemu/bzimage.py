"""Take the uncompressed kernel out of a bzImage.

QEMU starts an uncompressed kernel through its PVH entry, which saves the emulated machine the seconds that
decompressing takes it. Layout (kernel documentation, "The Linux/x86 Boot Protocol"), offsets in bytes:

====== ==== ==================================================================
0x1f1  u8   number of 512-byte setup sectors after the first one (0 means 4)
0x202  char ``HdrS``
0x248  u32  offset of the compressed kernel, from the end of the setup sectors
0x24c  u32  its length; the last 4 bytes hold the uncompressed size
====== ==== ==================================================================
"""

from __future__ import annotations

import struct

from drivebay.errors import StorageError
from drivebay.qemu.compression import decompress

_MAGIC = slice(0x202, 0x206)
_HEADER_END = 0x250
_ELF = b"\x7fELF"


def uncompressed_kernel(image: bytes) -> bytes | None:
    """The ELF kernel inside the bzImage ``image``; None when it cannot be had (the image boots too)."""
    if len(image) < _HEADER_END or image[_MAGIC] != b"HdrS":
        return None
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    try:
        kernel = decompress(image[start : start + length - 4])
    except StorageError:
        return None
    return kernel if kernel.startswith(_ELF) else None
