"""A VDI header turned into the description that the engine executes."""

from __future__ import annotations

from drivebay.blockmap import (
    Allocator,
    BlockState,
    Entry,
    Field,
    Files,
    Layer,
    Mark,
    MarkKind,
    Rule,
    Table,
    WritePlan,
)
from drivebay.formats.vdi.header import (
    COUNTER_OFFSET,
    ENTRY_SIZE,
    FREE,
    HEADER_SIZE,
    MODIFICATION_OFFSET,
    ZERO,
    Chs,
    Header,
    ImageType,
    geometry,
)
from drivebay.formats.vdi.rules import read_header
from drivebay.formats.vdi.version0 import REFUSAL, table_of_version0
from drivebay.model import NULL_UUID, SECTOR, Geometry, ImageFacts, physical_geometry

_ALL_BITS = 0xFFFFFFFF
_RULES = (Rule(_ALL_BITS, FREE, BlockState.ABSENT), Rule(_ALL_BITS, ZERO, BlockState.ZERO))


def open_layer(files: Files) -> Layer:
    """Describe the image; reads the header only, so it costs the same whatever the size."""
    header = read_header(files)
    if header.major == 0:
        return Layer(_facts(header), (table_of_version0(header),), refusal=REFUSAL)
    table = Table(
        start=0,
        length=header.size,
        block=header.block_size,
        source=0,
        root=header.map_offset,
        entry=_entry(header),
    )
    return Layer(_facts(header), (table,), _plan(header))


def _entry(header: Header) -> Entry:
    return Entry(
        width=ENTRY_SIZE,
        byte_order="<",
        rules=_RULES,
        mask=_ALL_BITS,
        scale=header.unit,
        base=header.data_offset + header.extra,
    )


def _plan(header: Header) -> WritePlan:
    fixed = header.type == ImageType.FIXED
    return WritePlan(
        allocator=Allocator.BUMP_COUNTER,
        unit=header.unit,
        lead=header.extra,
        first=header.data_offset,
        limit=header.blocks,
        zero=None if fixed else ZERO,
        absent=FREE,
        counter=Field(COUNTER_OFFSET, 4, "<"),
        marks=(Mark(MODIFICATION_OFFSET, MarkKind.RANDOM_UUID),),
        punch=not fixed,
    )


def _facts(header: Header) -> ImageFacts:
    return ImageFacts(
        format="vdi",
        variant=ImageType(header.type).name.lower(),
        size=header.size,
        block_size=header.block_size,
        differencing=is_differencing(header),
        uuid=header.uuid,
        modification_uuid=header.modification_uuid,
        parent_uuid=header.parent_uuid,
        parent_modification_uuid=header.parent_modification_uuid,
        comment=_text(header.comment),
        pchs=_pchs(header),
        lchs=_lchs(header),
        details=_details(header),
    )


def is_differencing(header: Header) -> bool:
    """Whether free blocks are the parent's. A base that names a parent stays a base, as in VirtualBox."""
    if header.type == ImageType.UNDO:
        return header.parent_uuid != NULL_UUID
    return header.type == ImageType.DIFFERENCING


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _pchs(header: Header) -> Geometry:
    """The stored geometry, clipped, or the default where it can't be (specification, 2.5)."""
    cylinders, heads, sectors, _ = header.pchs
    fits = cylinders * heads * sectors * SECTOR <= header.size
    if cylinders and 0 < heads <= 16 and 0 < sectors <= 63 and fits:
        return Geometry(min(cylinders, 16383), heads, sectors)
    return physical_geometry(header.size)


def _lchs(header: Header) -> Geometry:
    """The stored geometry, or "not decided" where no BIOS could use it (specification, 2.5)."""
    stored = header.lchs if header.header_size >= HEADER_SIZE else Chs(0, 0, 0, 0)
    possible = stored.cylinders <= 1024 and stored.heads <= 255 and stored.sectors <= 63
    found = geometry(stored)
    return found if found and possible else Geometry(0, 0, 0)


def _details(header: Header) -> dict[str, int | str]:
    return {
        "header version": f"{header.version >> 16}.{header.version & 0xFFFF}",
        "header size": header.header_size,
        "flags": header.flags,
        "map offset": header.map_offset,
        "data offset": header.data_offset,
        "extra per block": header.extra,
        "blocks": header.blocks,
        "blocks allocated": header.blocks_allocated,
        "creator": _text(header.text).strip().removeprefix("<<<").removesuffix(">>>").strip(),
    }
