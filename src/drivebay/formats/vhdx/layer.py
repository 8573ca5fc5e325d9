"""A VHDX image turned into the description that the engine executes."""

from __future__ import annotations

from drivebay.blockmap import (
    Allocator,
    BlockState,
    Entry,
    Files,
    Journal,
    Layer,
    LogPlace,
    Presence,
    PresencePlace,
    Rule,
    Table,
    WritePlan,
)
from drivebay.formats.vhdx.header import HEADER_OFFSETS, LAST_SEQUENCE, MIB, read_creator
from drivebay.formats.vhdx.image import ENTRY_SIZE, ImageParts, read_parts
from drivebay.formats.vhdx.locator import LINKAGE2
from drivebay.model import NULL_UUID, ImageFacts, physical_geometry

STATE = 7
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
OFFSET = 0xFFFFFFFFFFF00000

_STATES = (
    Rule(STATE, NOT_PRESENT, BlockState.ABSENT),
    Rule(STATE, UNDEFINED, BlockState.ZERO),
    Rule(STATE, ZERO, BlockState.ZERO),
    Rule(STATE, UNMAPPED, BlockState.ZERO),
    Rule(STATE, 4, BlockState.CORRUPT),
    Rule(STATE, 5, BlockState.CORRUPT),
    Rule(STATE | OFFSET, FULLY_PRESENT, BlockState.CORRUPT),  # nothing but the header lies at 0
    Rule(STATE | OFFSET, PARTIALLY_PRESENT, BlockState.CORRUPT),
)
_BITMAP = Entry(
    width=8,
    byte_order="<",
    rules=(
        Rule(STATE | OFFSET, FULLY_PRESENT, BlockState.CORRUPT),
        Rule(STATE, FULLY_PRESENT, BlockState.DATA),
        Rule(STATE, NOT_PRESENT, BlockState.ABSENT),
        Rule(0, 0, BlockState.CORRUPT),
    ),
    mask=OFFSET,
    scale=1,
)


def open_layer(files: Files) -> Layer:
    """Describe the image. Reads no BAT, so it costs the same whatever the size, but a log to be replayed."""
    parts = read_parts(files)
    refusal = _refusal(parts)
    plan = None if refusal else _plan(parts)
    return Layer(_facts(parts), (_table(parts),), plan, refusal, replay=parts.replay)


def payload_entry(parts: ImageParts) -> Entry:
    """How the BAT's entries of payload blocks read."""
    partial = BlockState.SPLIT if parts.metadata.has_parent else BlockState.CORRUPT
    rules = (*_STATES, Rule(STATE, PARTIALLY_PRESENT, partial))
    return Entry(width=ENTRY_SIZE, byte_order="<", rules=rules, mask=OFFSET, scale=1)


def _table(parts: ImageParts) -> Table:
    metadata = parts.metadata
    return Table(
        start=0,
        length=metadata.size,
        block=metadata.block_size,
        source=0,
        root=parts.bat.offset,
        entry=payload_entry(parts),
        interleave=metadata.chunk_ratio,
        presence=_presence(metadata.logical_sector) if metadata.has_parent else None,
    )


def _presence(unit: int) -> Presence:
    return Presence(PresencePlace.INTERLEAVED, unit, "lsb", BlockState.ABSENT, entry=_BITMAP)


def _refusal(parts: ImageParts) -> str | None:
    header = parts.headers.current
    if header.log_length == 0:
        return "it has no log, through which all changes of its tables must go"
    if header.sequence > LAST_SEQUENCE // 2:
        return f"its header's sequence number {header.sequence} leaves no room to count"
    return None


def _plan(parts: ImageParts) -> WritePlan:
    header, fixed = parts.headers.current, parts.metadata.fixed
    return WritePlan(
        allocator=Allocator.BUMP_EOF,
        journal=Journal.VHDX_LOG,
        unit=parts.metadata.block_size,
        first=parts.first,
        align=MIB,
        leaf_flags=FULLY_PRESENT,
        zero=None if fixed else ZERO,
        absent=NOT_PRESENT,
        punch=not fixed,
        log=LogPlace(header.log_offset, header.log_length, HEADER_OFFSETS),
    )


def _facts(parts: ImageParts) -> ImageFacts:
    metadata, locator = parts.metadata, parts.metadata.locator
    return ImageFacts(
        format="vhdx",
        variant=_variant(parts),
        size=metadata.size,
        block_size=metadata.block_size,
        differencing=metadata.has_parent,
        uuid=metadata.disk_id,
        modification_uuid=parts.headers.current.data_write,
        parent_modification_uuid=locator.linkage if locator else NULL_UUID,
        pchs=physical_geometry(metadata.size),
        sector_size=metadata.logical_sector,
        parent_names=locator.names if locator else (),
        details=_details(parts),
    )


def _variant(parts: ImageParts) -> str:
    if parts.metadata.has_parent:
        return "differencing"
    return "fixed" if parts.metadata.fixed else "dynamic"


def _details(parts: ImageParts) -> dict[str, int | str]:
    header, metadata = parts.headers.current, parts.metadata
    details: dict[str, int | str] = {
        "creator": read_creator(parts.files),
        "physical sector size": metadata.physical_sector,
        "header sequence number": header.sequence,
        "file write GUID": str(header.file_write),
        "log": "to be replayed" if header.dirty else "empty",
        "log offset": header.log_offset,
        "log length": header.log_length,
        "BAT offset": parts.bat.offset,
        "BAT entries": metadata.bat_entries,
        "metadata offset": parts.metadata_region.offset,
        "metadata items": len(metadata.items),
        "chunk ratio": metadata.chunk_ratio,
    }
    stored = metadata.locator.values if metadata.locator else {}
    keys = {key: value for key, value in stored.items() if key.endswith("_path") or key == LINKAGE2}
    return details | {f"parent {key.removeprefix('parent_')}": value for key, value in keys.items()}
