"""What a descriptor says of its image, in the terms that all formats share."""

from __future__ import annotations

import re
from uuid import UUID

from drivebay.formats.vmdk.descriptor import Descriptor, unescape
from drivebay.formats.vmdk.extents import Extents
from drivebay.model import NULL_UUID, SECTOR, Geometry, ImageFacts, physical_geometry

NO_CONTENT = 0xFFFFFFFF
VARIANTS = (
    "monolithicSparse",
    "twoGbMaxExtentSparse",
    "monolithicFlat",
    "twoGbMaxExtentFlat",
    "vmfs",
    "vmfsSparse",
    "streamOptimized",
    "seSparse",
    "fullDevice",
    "partitionedDevice",
    "custom",
)
_SPELLINGS = {name.lower(): name for name in VARIANTS} | {
    "2gbmaxextentsparse": "twoGbMaxExtentSparse",
    "2gbmaxextentflat": "twoGbMaxExtentFlat",
}
_GEOMETRY = ("cylinders", "heads", "sectors")
_BIOS = ("biosCylinders", "biosHeads", "biosSectors")
_TOLD = {
    "ddb.uuid.image",
    "ddb.uuid.modification",
    "ddb.uuid.parent",
    "ddb.uuid.parentmodification",
    "ddb.comment",
    *(f"ddb.geometry.{key}".lower() for key in (*_GEOMETRY, *_BIOS)),
}
_NAMES = {"ddb.adaptertype": "adapter type", "ddb.virtualhwversion": "hardware version"}


def image_facts(descriptor: Descriptor, extents: Extents) -> ImageFacts:
    """The facts; what the descriptor lacks or says wrongly counts as not said."""
    content, parent_content = descriptor.hexadecimal("CID"), descriptor.hexadecimal("parentCID")
    parent_content = None if parent_content == NO_CONTENT else parent_content
    parent = identifier(descriptor, "parent")
    differencing = parent != NULL_UUID or parent_content is not None
    return ImageFacts(
        format="vmdk",
        variant=variant(descriptor, extents),
        size=extents.size,
        block_size=_block_size(extents),
        differencing=differencing,
        uuid=identifier(descriptor, "image"),
        modification_uuid=identifier(descriptor, "modification"),
        parent_uuid=parent,
        parent_modification_uuid=identifier(descriptor, "parentmodification"),
        comment=unescape(descriptor.get("ddb.comment")),
        pchs=_pchs(descriptor, extents.size),
        lchs=_lchs(descriptor),
        parent_names=_parent_names(descriptor) if differencing else (),
        content_id=None if content == NO_CONTENT else content,
        parent_content_id=parent_content,
        details=_details(descriptor, extents),
    )


def variant(descriptor: Descriptor, extents: Extents) -> str:
    """The createType in its usual spelling; where there is none, what the extents amount to."""
    written = descriptor.get("createType")
    if written:
        return _SPELLINGS.get(written.lower(), written)
    if descriptor.embedded and extents.sparse:
        return "streamOptimized" if extents.sparse[0].table.packed else "monolithicSparse"
    return "custom"


def identifier(descriptor: Descriptor, which: str) -> UUID:
    """One of VirtualBox's four UUIDs, the null UUID where there is none."""
    try:
        return UUID(descriptor.get(f"ddb.uuid.{which}"))
    except ValueError:
        return NULL_UUID


def _block_size(extents: Extents) -> int | None:
    sizes = {sparse.table.block for sparse in extents.sparse}
    return sizes.pop() if len(sizes) == 1 else None


def _geometry(descriptor: Descriptor, keys: tuple[str, str, str]) -> Geometry:
    texts = [descriptor.get(f"ddb.geometry.{key}") for key in keys]
    return Geometry(*(int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0 for text in texts))


def _pchs(descriptor: Descriptor, size: int) -> Geometry:
    """The stored geometry, clipped, or the default where it can't be (specification, 2.5)."""
    stored = _geometry(descriptor, _GEOMETRY)
    fits = stored.cylinders * stored.heads * stored.sectors * SECTOR <= size
    if stored and stored.heads <= 16 and stored.sectors <= 63 and fits:
        return Geometry(min(stored.cylinders, 16383), stored.heads, stored.sectors)
    return physical_geometry(size)


def _lchs(descriptor: Descriptor) -> Geometry:
    stored = _geometry(descriptor, _BIOS)
    possible = stored.cylinders <= 1024 and stored.heads <= 255 and stored.sectors <= 63
    return stored if stored and possible else Geometry(0, 0, 0)


def _parent_names(descriptor: Descriptor) -> tuple[str, ...]:
    """The hint as a path of ours, then its last part alone: the parent may have come along."""
    hint = descriptor.get("parentFileNameHint")
    if re.match(r"[A-Za-z]:[\\/]", hint) or ("\\" in hint and "/" not in hint):
        hint = re.sub(r"^[A-Za-z]:", "", hint).replace("\\", "/")
    names = (hint, hint.rpartition("/")[2])
    return tuple(dict.fromkeys(name for name in names if name))


def _details(descriptor: Descriptor, extents: Extents) -> dict[str, int | str]:
    details: dict[str, int | str] = {"extents": len(descriptor.extents), "encoding": descriptor.encoding}
    if extents.sparse:
        first = extents.sparse[0]
        details |= {"header": first.kind, "header version": first.version, "flags": first.flags}
        if first.table.directory is not None:
            details["entries per grain table"] = first.table.directory.per_leaf
    for key, setting in descriptor.settings.items():
        if key.startswith("ddb.") and key not in _TOLD:
            details[_NAMES.get(key, setting.key)] = setting.value
    return details
