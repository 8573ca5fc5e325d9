"""A QCOW2 image turned into the description that the engine executes."""

from __future__ import annotations

from drivebay.blockmap import (
    Allocator,
    BlockState,
    Codec,
    Directory,
    Entry,
    Files,
    Layer,
    Mark,
    MarkKind,
    PackedEntry,
    Presence,
    PresencePlace,
    Refcounts,
    Rule,
    Table,
    WritePlan,
)
from drivebay.formats.qcow2.facts import facts_of
from drivebay.formats.qcow2.header import (
    AUTOCLEAR_PLACE,
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    REFCOUNT_PLACE,
    ZERO,
    Autoclear,
    Header,
    Incompatible,
)
from drivebay.formats.qcow2.image import Image, read_image
from drivebay.model import SECTOR

ALL_SUBCLUSTERS = 0xFFFF_FFFF


def open_layer(files: Files) -> Layer:
    """Describe the image; reads the header, its extensions and the lists of snapshots and bitmaps only."""
    image = read_image(files)
    table = _table(image)
    refused = _refusal(image)
    return Layer(
        facts_of(files, image, table.length),
        (table,),
        None if refused else _plan(image.header),
        refused,
        (image.data_file,) if image.data_file is not None else (),
    )


def _table(image: Image) -> Table:
    header, chosen = image.header, image.chosen
    size = chosen.size if chosen else header.size
    return Table(
        start=0,
        length=size + -size % SECTOR,
        block=header.cluster,
        source=0,
        root=chosen.l1_offset if chosen else header.l1_offset,
        entry=leaf_entry(header),
        directory=Directory(
            directory_entry(header), header.per_leaf, chosen.l1_size if chosen else header.l1_size
        ),
        presence=Presence(PresencePlace.BESIDE, header.cluster // 32) if header.extended else None,
        packed=packed_entry(header),
        data_source=1 if header.has_data_file else None,
        short_tail=True,
    )


def _unaligned(header: Header) -> tuple[Rule, ...]:
    """Offsets that are no multiple of the cluster size: one rule for each bit that must be clear."""
    return tuple(Rule(1 << bit, 1 << bit, BlockState.CORRUPT) for bit in range(9, header.cluster_bits))


def directory_entry(header: Header) -> Entry:
    """How an L1 entry reads."""
    rules = (Rule(OFFSET_MASK, 0, BlockState.ABSENT), *_unaligned(header))
    return Entry(width=8, byte_order=">", rules=rules, mask=OFFSET_MASK, scale=1, owned=COPIED)


def leaf_entry(header: Header) -> Entry:
    """How an L2 entry reads."""
    return Entry(
        width=8,
        byte_order=">",
        rules=(*_leaf_rules(header), *_unaligned(header)),
        mask=OFFSET_MASK,
        scale=1,
        owned=COPIED,
        stride=16 if header.extended else 0,
    )


def _leaf_rules(header: Header) -> tuple[Rule, ...]:
    compressed = BlockState.CORRUPT if header.has_data_file else BlockState.PACKED
    first = (*_too_far(header), Rule(COMPRESSED, COMPRESSED, compressed))
    if header.extended:
        return (*first, *_unaligned(header), Rule(0, 0, BlockState.SPLIT))
    zero = Rule(ZERO, ZERO, BlockState.ZERO if header.version > 2 else BlockState.CORRUPT)
    # In a data file, the first cluster of the disk lies at offset 0.
    nothing = OFFSET_MASK | (COPIED if header.has_data_file else 0)
    return *first, zero, Rule(nothing, 0, BlockState.ABSENT)


def _too_far(header: Header) -> tuple[Rule, ...]:
    """Compressed blocks beyond what 56 bits reach: one rule for each bit that must be clear."""
    bits = (COMPRESSED | 1 << bit for bit in range(56, 62 - (header.cluster_bits - 8)))
    return tuple(Rule(wrong, wrong, BlockState.CORRUPT) for wrong in bits)


def packed_entry(header: Header) -> PackedEntry:
    """How an entry of a compressed cluster is followed."""
    shift = 62 - (header.cluster_bits - 8)
    sectors = (1 << (header.cluster_bits - 8)) - 1
    return PackedEntry(
        codec=Codec.ZSTD if header.compression else Codec.DEFLATE,
        mask=(1 << shift) - 1,
        longest=(sectors + 1) * SECTOR,
        sectors_shift=shift,
        sectors_mask=sectors,
    )


def _refusal(image: Image) -> str | None:
    header = image.header
    if image.chosen is not None:
        return "it is a snapshot, which nothing may change"
    if header.incompatible & Incompatible.CORRUPT:
        return "it is marked as corrupt; run 'drivebay repair' on it"
    if header.incompatible & Incompatible.DIRTY:
        return "its reference counts may be wrong, as it was not closed; run 'drivebay repair' on it"
    if header.has_data_file and header.snapshots:
        return "it has internal snapshots, which would share the places of its blocks in the data file"
    return None


def _plan(header: Header) -> WritePlan:
    zero = ZERO if header.version > 2 and not header.extended else None
    return WritePlan(
        allocator=Allocator.OWN_PLACE if header.has_data_file else Allocator.REFCOUNT,
        unit=header.cluster,
        align=header.cluster,
        leaf=header.cluster,
        leaf_flags=COPIED,
        directory_flags=COPIED,
        zero=0 if header.extended else zero,
        marks=_marks(header),
        beside=ALL_SUBCLUSTERS if header.extended else 0,
        beside_zero=ALL_SUBCLUSTERS << 32 if header.extended else 0,
        refcounts=Refcounts(
            root=header.refcount_offset,
            table_clusters=header.refcount_clusters,
            cluster=header.cluster,
            bits=header.refcount_bits,
            place=REFCOUNT_PLACE,
        ),
    )


def _marks(header: Header) -> tuple[Mark, ...]:
    """Autoclear features that writing would make untrue: bitmaps, and all that drivebay doesn't know."""
    if header.autoclear & ~Autoclear.RAW_DATA_FILE == 0:
        return ()
    kept = header.autoclear & Autoclear.RAW_DATA_FILE
    return (Mark(AUTOCLEAR_PLACE, MarkKind.FIXED, kept.to_bytes(8, "big")),)
