"""How large a VHD disk is: the size field or the geometry, and the geometry of a size.

Virtual PC shows a guest what the geometry spans, all others the size field (docs/formats/vhd.md).
"""

from __future__ import annotations

import enum

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhd.footer import Footer
from drivebay.model import SECTOR, Geometry

MIB = 1 << 20
GIB = 1 << 30
MAX_SPARSE = 2040 * GIB  # more blocks than this, with their bitmaps, the 32-bit sector numbers can't reach
MAX_SIZE = 2048 * GIB
LARGEST_GEOMETRY = Geometry(65535, 16, 255)  # "the geometry says nothing, use the size"
MAX_CHS_SIZE = 65535 * 16 * 255 * SECTOR

_BY_GEOMETRY = (b"vpc ", b"vs  ", b"qemu")


class SizeRule(enum.StrEnum):
    """Which sizes a new disk may have."""

    EXACT = "exact"  # Hyper-V, VirtualBox: any multiple of a sector
    CHS = "chs"  # Virtual PC: what a geometry can span, rounded up
    AZURE = "azure"  # fixed disks of whole MiB, rounded up


def capacity(geometry: Geometry) -> int:
    """The bytes that a geometry spans."""
    return geometry.cylinders * geometry.heads * geometry.sectors * SECTOR


def is_sized_by_geometry(footer: Footer) -> bool:
    """Whether its geometry is the disk's size: as its creator means it, where it says something."""
    span = capacity(footer.geometry)
    by_creator = footer.creator in _BY_GEOMETRY
    return by_creator and 0 < span <= footer.current_size and footer.geometry != LARGEST_GEOMETRY


def disk_size(footer: Footer) -> int:
    """The bytes of the virtual disk."""
    return capacity(footer.geometry) if is_sized_by_geometry(footer) else footer.current_size


def geometry_of(size: int) -> Geometry:
    """The largest geometry within ``size`` bytes (VHD specification 1.0, appendix "CHS Calculation")."""
    sectors = min(size, MAX_CHS_SIZE) // SECTOR
    if sectors >= 65535 * 16 * 63:
        return Geometry(sectors // (16 * 255), 16, 255)
    heads = max(-(-(sectors // 17) // 1024), 4)
    if heads <= 16 and sectors // 17 < heads * 1024:
        return Geometry(sectors // 17 // heads, heads, 17)
    per_track = 31 if sectors // 31 < 16 * 1024 else 63
    return Geometry(sectors // per_track // 16, 16, per_track)


def stored_geometry(size: int) -> Geometry:
    """The geometry for a new footer: one that spans the size, or else the one that says nothing.

    QEMU goes by the geometry of images whose creator it doesn't know, unless it is this one.
    """
    fitting = geometry_of(size)
    return fitting if capacity(fitting) == size else LARGEST_GEOMETRY


def rounded(size: int, rule: SizeRule) -> int:
    """The size of a new disk that shall hold ``size`` bytes. Raises StorageError (INVALID)."""
    if rule is SizeRule.AZURE:
        return size + -size % MIB
    if rule is SizeRule.EXACT:
        return size
    if size > MAX_CHS_SIZE:
        raise StorageError(
            ErrorKind.INVALID,
            f"a geometry spans {MAX_CHS_SIZE} bytes at most, not {size}; make the disk smaller, "
            "or leave the size rule out if Virtual PC needn't open it",
            operation="create",
        )
    return _next_capacity(size)


def _next_capacity(size: int) -> int:
    wanted = size
    while (span := capacity(geometry_of(wanted))) < size:
        wanted += SECTOR
    return span
