"""DMG images from scratch: any chunks in any order, with every field of the trailer at will."""

from __future__ import annotations

import plistlib
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from drivebay.blockmap import Codec
from drivebay.formats.dmg.tables import ChunkType
from support.packing import pack

SECTOR = 512
CODECS = {
    ChunkType.RAW: Codec.STORED,
    ChunkType.ADC: Codec.ADC,
    ChunkType.ZLIB: Codec.ZLIB,
    ChunkType.BZIP2: Codec.BZIP2,
    ChunkType.LZFSE: Codec.LZFSE,
    ChunkType.LZMA: Codec.LZMA,
}
_TRAILER = struct.Struct(">4s3I 5Q 2I 16s 2I 128s 2Q 120s 2I 128s I Q 12s")


class Piece(NamedTuple):
    """A chunk to be made: ``sectors`` from ``sector`` on, counted from its table's first.

    ``stored`` are its bytes in the data fork; offset and size follow from them unless they are given.
    """

    type: int
    sector: int
    sectors: int
    stored: bytes = b""
    offset: int | None = None
    size: int | None = None


def packed(kind: ChunkType, sector: int, data: bytes) -> Piece:
    """A chunk that holds ``data``."""
    return Piece(kind, sector, len(data) // SECTOR, pack(CODECS[kind], data))


def cut(kind: ChunkType, data: bytes, length: int) -> list[Piece]:
    """``data`` in chunks of ``length`` bytes, all of one type, with a terminator."""
    places = range(0, len(data), length)
    pieces = [packed(kind, place // SECTOR, data[place : place + length]) for place in places]
    return [*pieces, Piece(ChunkType.TERMINATOR, len(data) // SECTOR, 0)]


class Table(NamedTuple):
    """The chunks of a partition that begins in ``sector``; ``fields`` replace what its header says."""

    sector: int
    pieces: Sequence[Piece]
    checksum: int = 0
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed


def make_dmg(tables: Sequence[Table], sectors: int, *, lead: bytes = b"", **fields: Any) -> bytes:
    """The image's bytes. ``lead`` comes before the data fork; ``fields`` replace what the trailer says."""
    fork = bytearray()
    entries = [_entry(number, table, fork) for number, table in enumerate(tables)]
    xml = fields.pop("xml", None) or plistlib.dumps({"resource-fork": {"blkx": entries}})
    checksums = b"".join(table.checksum.to_bytes(4, "big") for table in tables)
    trailer = {
        "signature": b"koly",
        "version": 4,
        "header_size": 512,
        "flags": 1,
        "running_data_offset": 0,
        "data_offset": len(lead),
        "data_length": len(fork),
        "resource_offset": 0,
        "resource_length": 0,
        "segment_number": 1,
        "segment_count": 1,
        "segment_id": bytes(range(16)),
        **_checksum_fields("data", zlib.crc32(fork)),
        "xml_offset": len(lead) + len(fork),
        "xml_length": len(xml),
        "reserved": b"",
        **_checksum_fields("master", zlib.crc32(checksums)),
        "variant": 1,
        "sectors": sectors,
        "reserved_end": b"",
    }
    assert not fields.keys() - trailer.keys(), fields
    return lead + fork + xml + _TRAILER.pack(*(trailer | fields).values())


def _checksum_fields(name: str, value: int) -> dict[str, Any]:
    return {f"{name}_type": 2, f"{name}_bits": 32, f"{name}_checksum": value.to_bytes(4, "big")}


def _entry(number: int, table: Table, fork: bytearray) -> dict[str, Any]:
    chunks = b"".join(_chunk(piece, fork) for piece in table.pieces)
    ends = [piece.sector + piece.sectors for piece in table.pieces]
    header = {
        "signature": b"mish",
        "version": 1,
        "sector": table.sector,
        "sectors": min(max(ends, default=0), (1 << 64) - 1),
        "data_offset": 0,
        "buffers": 2056,
        "descriptor": number,
        "reserved": b"",
        **_checksum_fields("", table.checksum),
        "count": len(table.pieces),
    }
    assert not table.fields.keys() - header.keys(), table.fields
    data = struct.pack(">4sI 3Q 2I 24s 2I 128s I", *(header | table.fields).values()) + chunks
    name = f"disk image (Apple_HFS : {number})"
    return {"Attributes": "0x0050", "CFName": name, "Data": data, "ID": str(number - 1), "Name": name}


def _chunk(piece: Piece, fork: bytearray) -> bytes:
    offset = len(fork) if piece.offset is None else piece.offset
    size = len(piece.stored) if piece.size is None else piece.size
    fork += piece.stored
    return struct.pack(">2I4Q", piece.type, 0, piece.sector, piece.sectors, offset, size)
