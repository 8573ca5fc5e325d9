"""Sparse extents: how the tables of each kind of them are described, and what writing them needs."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.blockmap import (
    BlockState,
    Codec,
    Directory,
    Entry,
    Field,
    Files,
    Mark,
    MarkKind,
    PackedEntry,
    Rule,
    Table,
)
from drivebay.errors import ErrorKind
from drivebay.formats.vmdk import cowd, header, sesparse
from drivebay.formats.vmdk.rules import read_header, refusal
from drivebay.model import SECTOR

_ALL = 0xFFFFFFFF
_ABSENT = Rule(_ALL, 0, BlockState.ABSENT)
_PACKED = Rule(0, 0, BlockState.PACKED)
ZEROED = 1  # the grain table entry of a zeroed grain


@dataclass(frozen=True, slots=True)
class Place:
    """Where an extent belongs: ``length`` bytes at byte ``start`` of the disk, in source ``source``."""

    start: int
    length: int
    source: int


@dataclass(frozen=True, slots=True)
class SparseExtent:
    """An opened sparse extent: ``first``, ``zero`` and ``leaf`` as in `WritePlan`.

    ``refusal`` says why it can't be written, if so; ``kind`` is how its header is called.
    """

    table: Table
    kind: str
    version: int
    flags: int
    first: int = 0
    leaf: int = 0
    zero: int | None = None
    align: int = SECTOR
    mark: Mark | None = None
    counter: Field | None = None
    refusal: str | None = None


def open_sparse(files: Files, place: Place) -> SparseExtent:
    """The extent in ``files``, whatever its kind; the header is read and nothing else.

    Raises StorageError.
    """
    magic = files.read(0, 8)
    if magic[:4] == cowd.MAGIC:
        return _cowd(files, place)
    if magic == sesparse.MAGIC:
        return _sesparse(files, place)
    return _hosted(files, place)


def _hosted(files: Files, place: Place) -> SparseExtent:
    found = read_header(files)
    capacity = (found.capacity + -found.capacity % found.grain) * SECTOR
    _require_room(files, place, capacity)
    flagged = bool(found.flags & header.ZEROED_GRAINS)
    redundant = bool(found.flags & header.REDUNDANT)
    whole = redundant and _is_inside(files, found)
    table = Table(
        start=place.start,
        length=place.length,
        block=found.grain_size,
        source=place.source,
        root=found.directory * SECTOR,
        entry=_hosted_entry(flagged, bool(found.compression)),
        directory=_directory(found.gtes, place.length, found.grain_size),
        packed=_packed(found) if found.compression else None,
        mirrors=(found.redundant * SECTOR,) if whole and not found.compression else (),
    )
    return SparseExtent(
        table,
        "hosted",
        found.version,
        found.flags,
        first=min(found.overhead * SECTOR, files.size),
        leaf=found.leaf,
        zero=ZEROED if flagged else None,
        align=found.grain_size,
        mark=Mark(header.UNCLEAN_OFFSET, MarkKind.FIXED, b"\1", b"\0", place.source),
        refusal=_hosted_refusal(found, redundant and not whole),
    )


def _hosted_entry(flagged: bool, compressed: bool) -> Entry:
    # Sector 1 never holds a grain: without the flag, an entry that names it is damaged.
    one = Rule(_ALL, ZEROED, BlockState.ZERO if flagged else BlockState.CORRUPT)
    rules = (_ABSENT, one, _PACKED) if compressed else (_ABSENT, one)
    return Entry(header.ENTRY_SIZE, "<", rules, mask=_ALL, scale=SECTOR)


def _packed(found: header.Header) -> PackedEntry:
    return PackedEntry(
        Codec.ZLIB, mask=_ALL, longest=2 * found.grain_size, scale=SECTOR, header=header.GRAIN_MARKER
    )


def _directory(per_leaf: int, length: int, grain_size: int) -> Directory:
    entry = Entry(header.ENTRY_SIZE, "<", (_ABSENT,), mask=_ALL, scale=SECTOR)
    return Directory(entry, per_leaf, -(-length // (grain_size * per_leaf)))


def _is_inside(files: Files, found: header.Header) -> bool:
    end = found.redundant * SECTOR + found.tables * header.ENTRY_SIZE
    return found.redundant > 0 and end <= files.size


def _hosted_refusal(found: header.Header, broken: bool) -> str | None:
    if found.compression:
        return "compressed grains can't be rewritten; convert the image to another variant to write to it"
    if found.version > 2:
        return "the image is of version 3, which may keep track of changes that drivebay wouldn't note"
    if broken:
        return "its redundant grain directory is missing; run 'drivebay repair' on it"
    return None


def _cowd(files: Files, place: Place) -> SparseExtent:
    found = cowd.read_header(files)
    _require_room(files, place, found.sectors * SECTOR)
    table = Table(
        start=place.start,
        length=place.length,
        block=found.grain * SECTOR,
        source=place.source,
        root=found.directory * SECTOR,
        entry=Entry(header.ENTRY_SIZE, "<", (_ABSENT,), mask=_ALL, scale=SECTOR),
        directory=_directory(cowd.GTES, place.length, found.grain * SECTOR),
    )
    return SparseExtent(
        table,
        "COWD",
        found.version,
        found.flags,
        first=cowd.HEADER_SIZE,
        leaf=cowd.GTES * header.ENTRY_SIZE,
        mark=Mark(cowd.UNCLEAN_OFFSET, MarkKind.FIXED, b"\1\0\0\0", b"\0\0\0\0", place.source),
        counter=Field(cowd.FREE_OFFSET, 4, "<"),
    )


def _sesparse(files: Files, place: Place) -> SparseExtent:
    found = sesparse.read_header(files)
    _require_room(files, place, found.capacity * SECTOR)
    table = Table(
        start=place.start,
        length=place.length,
        block=sesparse.GRAIN,
        source=place.source,
        root=found.directory * SECTOR,
        entry=sesparse.grain_entry(found),
        directory=Directory(
            sesparse.directory_entry(found),
            sesparse.GTES,
            -(-place.length // (sesparse.GRAIN * sesparse.GTES)),
        ),
    )
    reason = "drivebay only reads seSparse extents; convert the image to another variant to write to it"
    return SparseExtent(table, "seSparse", found.version, found.flags, refusal=reason)


def _require_room(files: Files, place: Place, capacity: int) -> None:
    if place.length > capacity:
        what = f"the extent holds {capacity} bytes, but its descriptor counts {place.length}"
        raise refusal(files, ErrorKind.CORRUPT, 12, what)
