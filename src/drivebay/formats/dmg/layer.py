"""A DMG's chunks turned into the description that the engine executes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from drivebay.blockmap import Codec, Files, Layer, Packed, PackedRun, Segment, Zeros
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.dmg.tables import Chunk, ChunkType, Table, read_tables
from drivebay.formats.dmg.trailer import SIZE, Trailer, read_trailer, refusal
from drivebay.model import SECTOR, ImageFacts, physical_geometry

_MAX_PACKED = 64 << 20
_PIECE = 1 << 20  # chunks that are not packed are cut into runs of this size
_MAX_NAMES = 32
_CODECS: dict[int, Codec] = {
    ChunkType.RAW: Codec.STORED,
    ChunkType.ADC: Codec.ADC,
    ChunkType.ZLIB: Codec.ZLIB,
    ChunkType.BZIP2: Codec.BZIP2,
    ChunkType.LZFSE: Codec.LZFSE,
    ChunkType.LZMA: Codec.LZMA,
}
_EMPTY = frozenset({int(ChunkType.ZERO), int(ChunkType.IGNORE)})
_VARIANTS = {
    frozenset[Codec](): "UDRO",
    frozenset({Codec.ADC}): "UDCO",
    frozenset({Codec.ZLIB}): "UDZO",
    frozenset({Codec.BZIP2}): "UDBZ",
    frozenset({Codec.LZFSE}): "ULFO",
    frozenset({Codec.LZMA}): "ULMO",
}
_REFUSAL = "DMG images can only be read; convert it to another format, or write to a differencing child of it"


class Extent(NamedTuple):
    """A chunk at its place: bytes of the disk and of the file. ``codec`` is ``None`` for zeros."""

    start: int
    length: int
    offset: int
    size: int
    codec: Codec | None
    table: int
    chunk: int

    @property
    def end(self) -> int:
        """Where it ends on the disk."""
        return self.start + self.length


class _Place(NamedTuple):
    """The file and the trailer that chunks are checked against."""

    files: Files
    trailer: Trailer

    def refusal(self, kind: ErrorKind, table: int, chunk: int, what: str) -> StorageError:
        text = f"DMG block table {table}, chunk {chunk}: {what}"
        return refusal(self.files, kind, self.trailer.xml_offset, text)


def open_layer(files: Files) -> Layer:
    """Describe the image; reads the trailer and the property list."""
    trailer = read_trailer(files)
    tables = read_tables(files, trailer)
    extents = read_extents(files, trailer, tables)
    return Layer(_facts(trailer, tables, extents), _segments(trailer, extents), refusal=_REFUSAL)


def read_extents(files: Files, trailer: Trailer, tables: Sequence[Table]) -> list[Extent]:
    """All chunks in the order of the disk; raises StorageError for those that can't be (D10 to D14)."""
    place = _Place(files, trailer)
    extents = [
        _extent(place, number, table, index, chunk)
        for number, table in enumerate(tables)
        for index, chunk in enumerate(table.chunks())
        if chunk.type != ChunkType.COMMENT and chunk.sectors
    ]
    extents.sort(key=lambda extent: extent.start)
    for before, after in itertools.pairwise(extents):
        if before.end > after.start:
            other = f"chunk {before.chunk} of table {before.table}"
            what = f"it begins in sector {after.start // SECTOR}, which {other} has too"
            raise place.refusal(ErrorKind.CORRUPT, after.table, after.chunk, what)
    _require_room(place, extents)
    return extents


def _extent(place: _Place, number: int, table: Table, index: int, chunk: Chunk) -> Extent:
    start, length = (table.sector + chunk.sector) * SECTOR, chunk.sectors * SECTOR
    if start + length > place.trailer.sectors * SECTOR:
        what = f"it ends in sector {(start + length) // SECTOR}, but the disk has {place.trailer.sectors}"
        raise place.refusal(ErrorKind.CORRUPT, number, index, what)
    if chunk.type in _EMPTY:
        return Extent(start, length, 0, 0, None, number, index)
    codec = _codec(place, number, index, chunk)
    offset = place.trailer.data_offset + table.data_offset + chunk.offset
    if offset + chunk.size > place.files.size - SIZE:
        what = f"its bytes end at {offset + chunk.size}, behind the file's data"
        raise place.refusal(ErrorKind.CORRUPT, number, index, what)
    _require_size(place, number, index, chunk)
    return Extent(start, length, offset, chunk.size, codec, number, index)


def _codec(place: _Place, number: int, index: int, chunk: Chunk) -> Codec:
    codec = _CODECS.get(chunk.type)
    if codec is None:
        what = f"drivebay does not know the type {chunk.type:#010x}"
        raise place.refusal(ErrorKind.UNSUPPORTED, number, index, what)
    return codec


def _require_size(place: _Place, number: int, index: int, chunk: Chunk) -> None:
    length = chunk.sectors * SECTOR
    if chunk.type == ChunkType.RAW and chunk.size != length:
        what = f"it has {chunk.size} bytes for {length} bytes of the disk, uncompressed"
        raise place.refusal(ErrorKind.CORRUPT, number, index, what)
    if chunk.type != ChunkType.RAW and length > _MAX_PACKED:
        what = f"it unpacks to {length} bytes, but at most {_MAX_PACKED} are read"
        raise place.refusal(ErrorKind.UNSUPPORTED, number, index, what)


def _require_room(place: _Place, extents: Sequence[Extent]) -> None:
    """Uncompressed chunks can't share bytes: otherwise a small file could ask for any number of runs."""
    stored = sum(extent.size for extent in extents if extent.codec is Codec.STORED)
    if stored > place.files.size:
        what = f"DMG block tables: {stored} bytes lie uncompressed in a file of {place.files.size}"
        raise refusal(place.files, ErrorKind.CORRUPT, place.trailer.xml_offset, what)


def _segments(trailer: Trailer, extents: Sequence[Extent]) -> tuple[Segment, ...]:
    runs = tuple(run for extent in extents for run in _runs(extent))
    size = trailer.sectors * SECTOR
    return (Packed(0, size, source=0, runs=runs) if runs else Zeros(0, size),)


def _runs(extent: Extent) -> Iterator[PackedRun]:
    if extent.codec is None:
        return
    if extent.codec is not Codec.STORED:
        yield PackedRun(extent.start, extent.length, extent.offset, extent.size, extent.codec)
        return
    for done in range(0, extent.length, _PIECE):
        length = min(_PIECE, extent.length - done)
        yield PackedRun(extent.start + done, length, extent.offset + done, length, Codec.STORED)


def _facts(trailer: Trailer, tables: Sequence[Table], extents: Sequence[Extent]) -> ImageFacts:
    size = trailer.sectors * SECTOR
    codecs = frozenset(extent.codec for extent in extents if extent.codec) - {Codec.STORED}
    return ImageFacts(
        format="dmg",
        variant=_VARIANTS.get(codecs, "mixed"),
        size=size,
        uuid=trailer.segment_id,
        pchs=physical_geometry(size),
        details=_details(trailer, tables, extents),
    )


def _details(trailer: Trailer, tables: Sequence[Table], extents: Sequence[Extent]) -> dict[str, int | str]:
    kinds = Counter(extent.codec.value if extent.codec else "zeros" for extent in extents)
    names = [table.name for table in tables[:_MAX_NAMES]] + ["..."] * (len(tables) > _MAX_NAMES)
    return {
        "version": trailer.version,
        "flags": trailer.flags,
        "running data fork offset": trailer.running_data_offset,
        "data fork offset": trailer.data_offset,
        "data fork length": trailer.data_length,
        "resource fork offset": trailer.resource_offset,
        "resource fork length": trailer.resource_length,
        "segment": f"{trailer.segment_number} of {trailer.segment_count}",
        "data checksum": _checksum(trailer.data_checksum.type, trailer.data_checksum.value),
        "property list offset": trailer.xml_offset,
        "property list length": trailer.xml_length,
        "master checksum": _checksum(trailer.master_checksum.type, trailer.master_checksum.value),
        "image variant": trailer.image_variant,
        "block tables": len(tables),
        "chunks": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        "partitions": "; ".join(names),
    }


def _checksum(kind: int, value: bytes) -> str:
    return f"type {kind}: {value.hex()}" if value else "none"
