"""A QED header turned into the description that the engine executes."""

from __future__ import annotations

from drivebay.blockmap import (
    Allocator,
    BlockState,
    Directory,
    Entry,
    Files,
    Layer,
    Mark,
    MarkKind,
    Rule,
    Table,
    WritePlan,
)
from drivebay.formats.backing import BackingName
from drivebay.formats.qed.header import (
    ABSENT,
    AUTOCLEAR_OFFSET,
    ENTRY_SIZE,
    FEATURES_OFFSET,
    NEED_CHECK,
    NO_PROBE,
    ZERO,
    Header,
    read_backing,
    read_header,
)
from drivebay.model import ImageFacts, physical_geometry

_ALL_BITS = (1 << 64) - 1
_MOST_TABLE = 64 << 20  # bytes; a new table is made in memory
_TOO_LARGE = (
    "its tables take {} bytes each, too many to make new ones; convert it to one with smaller clusters"
)


def open_layer(files: Files) -> Layer:
    """Describe the image; reads the header only, so it costs the same whatever the size."""
    header = read_header(files)
    facts = _facts(header, read_backing(files, header))
    if header.table_bytes > _MOST_TABLE:
        return Layer(facts, (_table(header),), refusal=_TOO_LARGE.format(header.table_bytes))
    return Layer(facts, (_table(header),), _plan(header))


def _table(header: Header) -> Table:
    return Table(
        start=0,
        length=header.size,
        block=header.cluster_size,
        source=0,
        root=header.l1_offset,
        entry=_entry(
            header, Rule(_ALL_BITS, ABSENT, BlockState.ABSENT), Rule(_ALL_BITS, ZERO, BlockState.ZERO)
        ),
        directory=Directory(
            entry=_entry(header, Rule(_ALL_BITS, ABSENT, BlockState.ABSENT)),
            per_leaf=header.table_entries,
            count=header.tables_needed,
        ),
    )


def _entry(header: Header, *special: Rule) -> Entry:
    """An entry is an offset in bytes; one within a cluster can't be, so each low bit is a rule."""
    low_bits = (1 << bit for bit in range(header.cluster_size.bit_length() - 1))
    unaligned = (Rule(bit, bit, BlockState.CORRUPT) for bit in low_bits)
    return Entry(ENTRY_SIZE, "<", rules=(*special, *unaligned), mask=_ALL_BITS, scale=1)


def _plan(header: Header) -> WritePlan:
    return WritePlan(
        allocator=Allocator.BUMP_EOF,
        unit=header.cluster_size,
        first=header.data_offset,
        align=header.cluster_size,
        zero=ZERO,
        absent=ABSENT,
        leaf=header.table_bytes,
        marks=tuple(_marks(header)),
    )


def _marks(header: Header) -> list[Mark]:
    """Unknown autoclear bits go before the first write; "need check" goes after the last flush.

    The engine verifies all tables before it writes: that is the check which the bit asks for.
    """
    marks = []
    if header.autoclear_features:
        marks.append(Mark(AUTOCLEAR_OFFSET, MarkKind.FIXED, opened=bytes(8)))
    if header.features & NEED_CHECK:
        kept = header.features.to_bytes(8, "little")
        cleared = (header.features & ~NEED_CHECK).to_bytes(8, "little")
        marks.append(Mark(FEATURES_OFFSET, MarkKind.FIXED, opened=kept, closed=cleared))
    return marks


def _facts(header: Header, backing: BackingName | None) -> ImageFacts:
    probed = backing.format if backing else None
    return ImageFacts(
        format="qed",
        variant="differencing" if header.has_backing else "dynamic",
        size=header.size,
        block_size=header.cluster_size,
        differencing=header.has_backing,
        pchs=physical_geometry(header.size),
        parent_names=(backing.path,) if backing else (),
        parent_format="raw" if backing and header.features & NO_PROBE else probed,
        details={
            "table size": header.table_size,
            "header size": header.header_size,
            "features": header.features,
            "compatible features": header.compat_features,
            "autoclear features": header.autoclear_features,
            "L1 table offset": header.l1_offset,
            "needs check": "yes" if header.features & NEED_CHECK else "no",
        },
    )
