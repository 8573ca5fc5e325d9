"""A VHD's headers turned into the description that the engine executes."""

from __future__ import annotations

from drivebay.blockmap import (
    Allocator,
    BlockState,
    Entry,
    Files,
    Layer,
    Linear,
    Presence,
    PresencePlace,
    Rule,
    Segment,
    Table,
    WritePlan,
)
from drivebay.formats.vhd.footer import FOOTER_SIZE, TEMPORARY_FEATURE, DiskType, Footer, moment, seconds_of
from drivebay.formats.vhd.header import ABSENT, ENTRY_SIZE, HEADER_SIZE, Header
from drivebay.formats.vhd.locators import parent_names
from drivebay.formats.vhd.rules import Image, read_image
from drivebay.formats.vhd.sizes import is_sized_by_geometry
from drivebay.model import NULL_UUID, SECTOR, Geometry, ImageFacts, physical_geometry

_ALL_BITS = 0xFFFFFFFF
_RULES = (Rule(_ALL_BITS, ABSENT, BlockState.ABSENT), Rule(0, 0, BlockState.SPLIT))
_SYSTEMS = {b"Wi2k": "Windows", b"Mac ": "Macintosh"}


def open_layer(files: Files) -> Layer:
    """Describe the image; reads the headers only, so it costs the same whatever the size."""
    image = read_image(files)
    refusal = _refusal(image)
    plan = None if refusal else _plan(image)
    return Layer(_facts(files, image), (_segment(image),), plan, refusal)


def _segment(image: Image) -> Segment:
    header = image.header
    if header is None:
        return Linear(0, image.size, source=0, offset=0)
    return Table(
        start=0,
        length=image.size,
        block=header.block_size,
        source=0,
        root=header.table_offset,
        entry=Entry(ENTRY_SIZE, ">", _RULES, mask=_ALL_BITS, scale=SECTOR, base=header.bitmap_size),
        presence=Presence(
            PresencePlace.LEAD,
            unit=SECTOR,
            bit_order="msb",
            clear=_clear(image.footer),
            lead=header.bitmap_size,
        ),
    )


def _clear(footer: Footer) -> BlockState:
    """What a sector is that the bitmap doesn't mark: the parent's; in a base, one never written, so zeros."""
    return BlockState.ABSENT if footer.type == DiskType.DIFFERENCING else BlockState.ZERO


def _plan(image: Image) -> WritePlan:
    header = image.header
    if header is None:
        return WritePlan(Allocator.NONE, punch=False)
    return WritePlan(
        Allocator.BUMP_EOF,
        unit=header.unit,
        lead=header.bitmap_size,
        first=_metadata_end(image.footer, header),
        align=SECTOR,
        lead_data=b"\xff" * header.bitmap_size,
        tail=image.footers.used.data,
        absent=ABSENT,
    )


def _metadata_end(footer: Footer, header: Header) -> int:
    ends = [footer.data_offset + HEADER_SIZE, header.table_end, FOOTER_SIZE]
    ends += [locator.offset + locator.length for locator in header.locators if any(locator.code)]
    return max(ends) + -max(ends) % SECTOR


def _refusal(image: Image) -> str | None:
    """Why the image can't be written, if so."""
    if not image.footers.used.sound:
        return "the checksum of its footer is wrong; repair it first"
    if not image.header_sound:
        return "the checksum of its dynamic header is wrong; repair it first"
    if image.header is not None and not image.footers.agree:
        return "its footer has no equal copy in front, so a crash could lose both; repair it first"
    return None


def _facts(files: Files, image: Image) -> ImageFacts:
    footer, header = image.footer, image.header
    differencing = footer.type == DiskType.DIFFERENCING and header is not None
    return ImageFacts(
        format="vhd",
        variant=DiskType(footer.type).name.lower(),
        size=image.size,
        block_size=header.block_size if header else None,
        differencing=differencing,
        uuid=footer.uuid,
        parent_uuid=header.parent_uuid if header and differencing else NULL_UUID,
        pchs=_pchs(footer, image.size),
        parent_names=parent_names(files, header) if header and differencing else (),
        parent_modified=seconds_of(header.parent_modified) if header and differencing else None,
        details=_details(image),
    )


def _pchs(footer: Footer, size: int) -> Geometry:
    """The stored geometry where an ATA disk can have it, else the default (specification, 2.5)."""
    stored = footer.geometry
    fits = stored.cylinders * stored.heads * stored.sectors * SECTOR <= size
    if stored and stored.heads <= 16 and stored.sectors <= 63 and fits:
        return Geometry(min(stored.cylinders, 16383), stored.heads, stored.sectors)
    return physical_geometry(size)


def _details(image: Image) -> dict[str, int | str]:
    footer, header = image.footer, image.header
    details: dict[str, int | str] = {
        "footer": image.footers.where,
        "checksums": "right" if image.footers.used.sound and image.header_sound else "wrong",
        "created": moment(footer.created),
        "creator": _text(footer.creator),
        "creator version": _version(footer.creator_version),
        "creator's system": _SYSTEMS.get(footer.creator_os, _text(footer.creator_os)),
        "format version": _version(footer.version),
        "size taken from": "the geometry" if is_sized_by_geometry(footer) else "the current size",
        "original size": footer.original_size,
        "current size": footer.current_size,
        "stored geometry": f"{footer.cylinders}/{footer.heads}/{footer.sectors}",
        "saved state": "yes" if footer.saved_state else "no",
        "temporary": "yes" if footer.features & TEMPORARY_FEATURE else "no",
    }
    return details | (_header_details(footer, header) if header else {})


def _header_details(footer: Footer, header: Header) -> dict[str, int | str]:
    codes = [_text(locator.code) for locator in header.locators if any(locator.code)]
    return {
        "header offset": footer.data_offset,
        "table offset": header.table_offset,
        "table entries": header.entries,
        "bitmap size": header.bitmap_size,
        "parent modified": moment(header.parent_modified),
        "parent locators": ", ".join(codes),
    }


def _version(value: int) -> str:
    return f"{value >> 16}.{value & 0xFFFF}"


def _text(raw: bytes) -> str:
    return raw.rstrip(b" \0").decode("ascii", "backslashreplace")
