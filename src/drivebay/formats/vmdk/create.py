"""New VMDK images: which files there are, and what their descriptor says."""

from __future__ import annotations

import enum
import os.path
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from drivebay.blockmap import CreateRequest, FileChange, FileExtent, FileWrite, FormatOptions
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import layout
from drivebay.formats.vmdk.descriptor import MAX_EXTENTS, Extent, escape
from drivebay.formats.vmdk.edit import MOST_LOGICAL, MOST_PHYSICAL, require_geometry
from drivebay.formats.vmdk.facts import NO_CONTENT
from drivebay.formats.vmdk.rules import MAX_GRAIN
from drivebay.formats.vmdk.text import geometry_settings, render
from drivebay.model import NULL_UUID, SECTOR, physical_geometry

CREATABLE = (
    "monolithicSparse",
    "twoGbMaxExtentSparse",
    "monolithicFlat",
    "twoGbMaxExtentFlat",
    "vmfs",
    "vmfsSparse",
    "streamOptimized",
)
DEFAULT_GRAIN = 64 << 10
COWD_GRAIN = SECTOR
SPLIT = 2047 << 20  # bytes of an extent of a split image
MAX_SPARSE = (256 << 40) - (64 << 10)  # exclusive
MAX_COWD = (1 << 32) * SECTOR  # exclusive
_FLAT = {"monolithicFlat", "twoGbMaxExtentFlat", "vmfs"}
_SPLIT = {"twoGbMaxExtentSparse", "twoGbMaxExtentFlat"}
_SUFFIXES = {
    "twoGbMaxExtentSparse": "s",
    "twoGbMaxExtentFlat": "f",
    "monolithicFlat": "flat",
    "vmfs": "flat",
    "vmfsSparse": "delta",
}
_TYPES = {"monolithicFlat": "FLAT", "twoGbMaxExtentFlat": "FLAT", "vmfs": "VMFS", "vmfsSparse": "VMFSSPARSE"}


class AdapterType(enum.Enum):
    """The controller that a VMDK says it is for."""

    DEFAULT = "default"
    IDE = "ide"
    BUSLOGIC = "buslogic"
    LSILOGIC = "lsilogic"
    LEGACY_ESX = "legacyESX"


@dataclass(frozen=True, slots=True)
class VmdkOptions(FormatOptions):
    """What only a VMDK can be asked for; ``block_size`` is that of a grain."""

    adapter_type: AdapterType = field(
        default=AdapterType.DEFAULT,
        metadata={"help": "the controller that the image says it is for; default: ide, lsilogic for vmfs"},
    )
    hardware_version: str = field(
        default="4",
        metadata={"help": "the version of VMware's virtual hardware that the image says it needs"},
    )
    zeroed_grain: bool = field(
        default=False,
        metadata={
            "help": "allow zeros to be marked instead of stored (header version 2: VMware and QEMU read "
            "it, VirtualBox does not)"
        },
    )


def create(request: CreateRequest) -> Iterator[FileChange]:
    """The changes that make the image's files; what makes it an image comes last.

    Raises StorageError (INVALID) at once for what a VMDK can't be.
    """
    variant = _variant(request)
    grain = _grain(request, variant)
    _require_size(request, variant)
    require_geometry(request.pchs, MOST_PHYSICAL, None, "create")
    require_geometry(request.lchs, MOST_LOGICAL, None, "create")
    extents = _extents(request, variant)
    text = render(_header(request, variant), extents, _database(request, variant))
    zeroed = isinstance(request.options, VmdkOptions) and request.options.zeroed_grain
    if variant == "monolithicSparse":
        return layout.hosted(request.size, grain, zeroed=zeroed, text=layout.fitted(text))
    if variant == "streamOptimized":
        return layout.stream(request.size, grain, layout.fitted(text))
    return _several(variant, extents, grain, zeroed=zeroed, text=text)


def _several(
    variant: str, extents: list[Extent], grain: int, *, zeroed: bool, text: bytes
) -> Iterator[FileChange]:
    for extent in extents:
        size = extent.sectors * SECTOR
        if variant in _FLAT:
            yield FileExtent(0, size, reserve=True, file=extent.name)
        elif variant == "vmfsSparse":
            yield from layout.cow(size, grain, extent.name)
        else:
            yield from layout.hosted(size, grain, zeroed=zeroed, file=extent.name)
    yield FileWrite(0, text)


def _variant(request: CreateRequest) -> str:
    variant = request.options.variant or CREATABLE[0]
    if variant not in CREATABLE:
        raise _invalid(f"VMDK has no variant {variant!r} to create; use one of: {', '.join(CREATABLE)}")
    if request.parent is not None and variant in _FLAT:
        raise _invalid(f"a {variant} image can't have a parent; use monolithicSparse")
    if request.uuid == NULL_UUID or (request.parent and request.parent.uuid == NULL_UUID):
        raise _invalid("an image and its parent can't have the null UUID; give each one of its own")
    return variant


def _grain(request: CreateRequest, variant: str) -> int:
    default = COWD_GRAIN if variant == "vmfsSparse" else DEFAULT_GRAIN
    grain = request.options.block_size or default
    if variant in _FLAT and request.options.block_size is not None:
        raise _invalid(f"a {variant} image has no grains; leave the block size out")
    least = SECTOR if variant == "vmfsSparse" else 8 * SECTOR
    if not least <= grain <= MAX_GRAIN * SECTOR or grain & (grain - 1):
        raise _invalid(
            f"a grain of {grain} bytes is not possible; "
            f"use a power of two from {least} to {MAX_GRAIN * SECTOR}"
        )
    return grain


def _require_size(request: CreateRequest, variant: str) -> None:
    most = {"vmfsSparse": MAX_COWD}.get(variant, MAX_SPARSE)
    if variant in _SPLIT:
        most = min(most, MAX_EXTENTS * SPLIT + 1)
    if request.size % SECTOR or not 0 < request.size < most:
        raise _invalid(
            f"a {variant} VMDK of {request.size} bytes is not possible; "
            f"give a multiple of {SECTOR} above 0 and below {most}"
        )


def _extents(request: CreateRequest, variant: str) -> list[Extent]:
    """The extents with the names that VirtualBox gives them (specification, 2.4)."""
    name = request.name or "disk.vmdk"
    if variant not in _SUFFIXES:
        return [Extent("RW", request.size // SECTOR, "SPARSE", name, 0)]
    stem, extension = os.path.splitext(name)
    kind, suffix = _TYPES.get(variant, "SPARSE"), _SUFFIXES[variant]
    step = SPLIT if variant in _SPLIT else request.size
    extents = []
    for number, start in enumerate(range(0, request.size, step), 1):
        index = f"{number:03d}" if variant in _SPLIT else ""
        sectors = min(step, request.size - start) // SECTOR
        extents.append(Extent("RW", sectors, kind, f"{stem}-{suffix}{index}{extension}", 0))
    return extents


def _header(request: CreateRequest, variant: str) -> dict[str, str]:
    link = request.parent
    content = zlib.crc32(request.modification_uuid.bytes)
    if content >= NO_CONTENT - 1:  # neither "none" nor "see the long one"
        content = 1
    parent = link.content_id if link and link.content_id is not None else NO_CONTENT
    header = {"version": "1", "CID": f"{content:08x}", "parentCID": f"{parent:08x}", "createType": variant}
    return header | ({"parentFileNameHint": link.path} if link else {})


def _database(request: CreateRequest, variant: str) -> dict[str, str]:
    options, link = request.options, request.parent
    chosen = options.adapter_type if isinstance(options, VmdkOptions) else AdapterType.DEFAULT
    if chosen is AdapterType.DEFAULT:
        chosen = AdapterType.LSILOGIC if variant.startswith("vmfs") else AdapterType.IDE
    version = options.hardware_version if isinstance(options, VmdkOptions) else "4"
    logical = geometry_settings(request.lchs, "bios") if request.lchs else {}
    return {
        "ddb.virtualHWVersion": version,
        "ddb.adapterType": chosen.value,
        **geometry_settings(request.pchs or physical_geometry(request.size), ""),
        **logical,
        "ddb.uuid.image": str(request.uuid),
        "ddb.uuid.parent": str(link.uuid if link else NULL_UUID),
        "ddb.uuid.modification": str(request.modification_uuid),
        "ddb.uuid.parentmodification": str(link.modification_uuid if link else NULL_UUID),
        "ddb.comment": escape(request.comment),
    }


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="create")
