"""Opening DMG: every kind of chunk reads as what was packed, in the order of the disk."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import Codec, Layer, Match, Packed, PackedRun, Zeros
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import dmg
from drivebay.formats import probe as probe_all
from drivebay.formats.dmg.tables import ChunkType
from support.dmg_images import CODECS, SECTOR, Piece, Table, cut, make_dmg, packed
from support.interpreter import read_layers
from support.memory_files import MemoryFiles

CHUNK = 64 << 10
CONTENT = b"".join(b"sector %08d of a disk. " % (number // 40) for number in range(10_000))[
    : 3 * CHUNK + 1024
]
VARIANTS = {"RAW": "UDRO", "ADC": "UDCO", "ZLIB": "UDZO", "BZIP2": "UDBZ", "LZFSE": "ULFO", "LZMA": "ULMO"}


def opened(data: bytes) -> Layer:
    return dmg.FORMAT.open(MemoryFiles(data, "image.dmg"))


def content_of(data: bytes) -> bytes:
    layer = opened(data)
    return read_layers([(layer, data)], 0, layer.facts.size)


@pytest.mark.parametrize("kind", CODECS)
def test_each_codec(kind: ChunkType) -> None:
    data = make_dmg([Table(0, cut(kind, CONTENT, CHUNK))], len(CONTENT) // SECTOR)
    assert content_of(data) == CONTENT
    assert opened(data).facts.variant == VARIANTS[kind.name]


def test_all_codecs_in_one_image_at_odd_offsets_behind_a_lead() -> None:
    kinds = list(CODECS)
    pieces = [packed(kind, 100 * index, CONTENT[index * 512 :][:51200]) for index, kind in enumerate(kinds)]
    random.Random(1).shuffle(pieces)
    data = make_dmg([Table(0, pieces)], 600, lead=b"seventeen bytes..")
    expected = b"".join(CONTENT[index * 512 :][:51200] for index in range(len(kinds)))
    assert content_of(data) == expected
    assert opened(data).facts.variant == "mixed"


def test_tables_out_of_order_and_with_an_offset_of_their_own() -> None:
    first, second = CONTENT[:CHUNK], CONTENT[CHUNK : 2 * CHUNK]
    back = Table(CHUNK // SECTOR, cut(ChunkType.ZLIB, second, CHUNK))
    front_pieces = cut(ChunkType.ZLIB, first, CHUNK)
    behind = len(back.pieces[0].stored)
    front = Table(0, [front_pieces[0]._replace(offset=0)], fields={"data_offset": behind})
    assert content_of(make_dmg([back, front], 2 * CHUNK // SECTOR)) == first + second


def test_what_is_zero_ignored_or_in_no_chunk_reads_as_zeros() -> None:
    pieces = [
        packed(ChunkType.ZLIB, 8, CONTENT[:4096]),
        Piece(ChunkType.ZERO, 0, 8),
        Piece(ChunkType.IGNORE, 16, 100),
        Piece(ChunkType.COMMENT, 0, 1 << 40, offset=1 << 50, size=1 << 60),
        packed(ChunkType.RAW, 200, CONTENT[:512]),
        Piece(ChunkType.ZLIB, 3, 0),
        Piece(ChunkType.TERMINATOR, 201, 0),
        Piece(ChunkType.ADC, 0, 201),
    ]
    data = make_dmg([Table(0, pieces)], 210)
    assert content_of(data) == bytes(4096) + CONTENT[:4096] + bytes(184 * 512) + CONTENT[:512] + bytes(
        9 * 512
    )
    (segment,) = opened(data).segments
    assert isinstance(segment, Packed)
    assert [(run.start, run.codec) for run in segment.runs] == [(4096, Codec.ZLIB), (102400, Codec.STORED)]


def test_a_disk_of_zeros_only() -> None:
    data = make_dmg([Table(0, [Piece(ChunkType.ZERO, 0, 1 << 40)])], 1 << 40)
    assert opened(data).segments == (Zeros(0, 512 << 40),)


def test_large_stored_chunks_become_small_runs() -> None:
    content = random.Random(2).randbytes((2 << 20) + 512)
    data = make_dmg([Table(0, [packed(ChunkType.RAW, 0, content)])], len(content) // SECTOR, lead=b"x")
    (segment,) = opened(data).segments
    assert isinstance(segment, Packed)
    assert segment.runs[0] == PackedRun(0, 1 << 20, 1, 1 << 20, Codec.STORED)
    assert segment.runs[2] == PackedRun(2 << 20, 512, 1 + (2 << 20), 512, Codec.STORED)
    assert content_of(data) == content


def test_the_facts_tell_everything() -> None:
    data = make_dmg(
        [
            Table(0, cut(ChunkType.ZLIB, CONTENT, CHUNK), checksum=7),
            Table(400, [Piece(ChunkType.ZERO, 0, 5)]),
        ],
        405,
        variant=2,
    )
    facts = opened(data).facts
    assert (facts.format, facts.variant, facts.size) == ("dmg", "UDZO", 405 * 512)
    assert facts.uuid == UUID(bytes=bytes(range(16)))
    details = dict(facts.details)
    assert details.pop("data checksum").startswith("type 2: ")  # type: ignore[union-attr]
    assert details.pop("master checksum").startswith("type 2: ")  # type: ignore[union-attr]
    fork, xml = details.pop("data fork length"), details.pop("property list length")
    assert details.pop("property list offset") == fork
    assert int(fork) + int(xml) + 512 == len(data)
    assert details == {
        "version": 4,
        "flags": 1,
        "running data fork offset": 0,
        "data fork offset": 0,
        "resource fork offset": 0,
        "resource fork length": 0,
        "segment": "1 of 1",
        "image variant": 2,
        "block tables": 2,
        "chunks": "1 zeros, 4 zlib",
        "partitions": "disk image (Apple_HFS : 0); disk image (Apple_HFS : 1)",
    }


def test_it_can_only_be_read() -> None:
    layer = opened(make_dmg([Table(0, [Piece(0, 0, 1)])], 1))
    assert layer.plan is None
    assert layer.refusal is not None
    assert "convert" in layer.refusal


@pytest.mark.parametrize(
    ("head", "tail", "match"),
    [
        (b"", b"koly".ljust(512, b"\0"), Match.YES),
        (bytes(4096), b"koly".ljust(512, b"\0"), Match.YES),
        (b"encrcdsa".ljust(4096), bytes(512), Match.YES),
        (b"", bytes(504) + b"cdsaencr", Match.YES),
        (b"koly".ljust(4096), bytes(512), Match.NO),
        (b"koly", b"koly", Match.NO),
        (b"", b"", Match.NO),
    ],
)
def test_probing(head: bytes, tail: bytes, match: Match) -> None:
    assert dmg.FORMAT.probe(head, tail) is match


def test_a_name_without_a_trailer_is_no_dmg() -> None:
    with pytest.raises(StorageError, match="no dmg header"):
        probe_all(bytes(4096), bytes(512), "disk.dmg")


def refusal(data: bytes) -> StorageError:
    with pytest.raises(StorageError) as caught:
        opened(data)
    assert caught.value.path == "image.dmg"
    assert caught.value.offset is not None
    return caught.value


@pytest.mark.parametrize(
    ("fields", "kind", "offset", "message"),
    [
        ({"signature": b"kola"}, ErrorKind.CORRUPT, 0, "do not begin with 'koly'"),
        ({"version": 5}, ErrorKind.UNSUPPORTED, 4, "version is 5"),
        ({"header_size": 1024}, ErrorKind.CORRUPT, 8, "size is 1024"),
        ({"segment_count": 3, "segment_number": 2}, ErrorKind.UNSUPPORTED, 60, "segment 2 of 3"),
        ({"xml_length": 0, "resource_length": 10}, ErrorKind.UNSUPPORTED, 40, "resource fork"),
        ({"xml_length": 0}, ErrorKind.CORRUPT, 224, "no block tables"),
        ({"xml_length": 65 << 20}, ErrorKind.UNSUPPORTED, 224, "at most"),
        ({"xml_offset": 1 << 63}, ErrorKind.CORRUPT, 216, "reaches into the trailer"),
        ({"data_offset": (1 << 64) - 1}, ErrorKind.CORRUPT, 24, "data fork ends at"),
        ({"sectors": 0}, ErrorKind.CORRUPT, 492, "has 0 sectors"),
        ({"sectors": 1 << 55}, ErrorKind.CORRUPT, 492, "sectors"),
    ],
)
def test_fields_of_the_trailer_that_can_not_be(
    fields: dict[str, Any], kind: ErrorKind, offset: int, message: str
) -> None:
    data = make_dmg([Table(0, [Piece(0, 0, 1)])], **{"sectors": 1} | fields)
    error = refusal(data)
    assert (error.kind, error.offset) == (kind, len(data) - 512 + offset)
    assert message in error.message


@pytest.mark.parametrize("data", [b"encrcdsa" + bytes(1000), bytes(1000) + b"cdsaencr"])
def test_encrypted_images_are_refused_by_name(data: bytes) -> None:
    error = refusal(data)
    assert error.kind is ErrorKind.UNSUPPORTED
    assert "encrypted" in error.message


@pytest.mark.parametrize(
    "xml",
    [
        b"no xml",
        b"<plist>",
        b"<plist><array/></plist>",
        b"<plist><dict/></plist>",
        b"<plist><string>text</string></plist>",
        b"<plist><date>when</date></plist>",
        b"<plist><integer>x</integer></plist>",
        b"<plist><data>&amp;</data><data>!</data></plist>",
        b"<plist><dict><key>resource-fork</key><array/></dict></plist>",
        b"<plist><dict><key>resource-fork</key><dict><key>blkx</key><dict/></dict></dict></plist>",
        b"<plist><dict><key>resource-fork</key><dict><key>blkx</key><array><true/></array></dict></dict></plist>",
        b'<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;">]><plist><string>&b;</string></plist>',
        b"bplist00\xd0\x08" + bytes(24),
    ],
)
def test_property_lists_that_are_none(xml: bytes) -> None:
    error = refusal(make_dmg([], 1, xml=xml))
    assert (error.kind, error.offset) == (ErrorKind.CORRUPT, 0)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"signature": b"mash"}, ErrorKind.CORRUPT, "signature is b'mash'"),
        ({"version": 2}, ErrorKind.UNSUPPORTED, "version is 2"),
        ({"count": 2}, ErrorKind.CORRUPT, "2 chunks need"),
        ({"count": (1 << 32) - 1}, ErrorKind.CORRUPT, "chunks need"),
        ({"sector": 1}, ErrorKind.CORRUPT, "ends in sector 2, but the disk has 1"),
        ({"sector": (1 << 64) - 1}, ErrorKind.CORRUPT, "but the disk has 1"),
    ],
)
def test_fields_of_a_table_that_can_not_be(fields: dict[str, Any], kind: ErrorKind, message: str) -> None:
    error = refusal(make_dmg([Table(0, [Piece(0, 0, 1)], fields=fields)], 1))
    assert error.kind is kind
    assert "block table 0" in error.message
    assert message in error.message


BLOCK = packed(ChunkType.ZLIB, 0, CONTENT[:4096])


@pytest.mark.parametrize(
    ("pieces", "kind", "message"),
    [
        (
            [BLOCK, BLOCK._replace(sector=7)],
            ErrorKind.CORRUPT,
            "chunk 1: it begins in sector 7, which chunk 0",
        ),
        ([BLOCK, BLOCK], ErrorKind.CORRUPT, "begins in sector 0"),
        ([BLOCK, Piece(ChunkType.ZERO, 0, 8)], ErrorKind.CORRUPT, "begins in sector 0"),
        ([BLOCK._replace(sector=93)], ErrorKind.CORRUPT, "ends in sector 101"),
        ([BLOCK._replace(sectors=1 << 63)], ErrorKind.CORRUPT, "but the disk has"),
        ([Piece(ChunkType.ZERO, 1 << 63, 1 << 63)], ErrorKind.CORRUPT, "but the disk has"),
        ([BLOCK._replace(size=1 << 62)], ErrorKind.CORRUPT, "behind the file's data"),
        ([BLOCK._replace(offset=1 << 62)], ErrorKind.CORRUPT, "behind the file's data"),
        ([BLOCK._replace(type=0x80000009)], ErrorKind.UNSUPPORTED, "type 0x80000009"),
        ([BLOCK._replace(type=ChunkType.RAW)], ErrorKind.CORRUPT, "uncompressed"),
    ],
)
def test_chunks_that_can_not_be(pieces: list[Piece], kind: ErrorKind, message: str) -> None:
    error = refusal(make_dmg([Table(0, pieces)], 100))
    assert error.kind is kind
    assert message in error.message


def test_a_chunk_that_unpacks_to_too_much() -> None:
    data = make_dmg([Table(0, [BLOCK._replace(sectors=(64 << 11) + 1)])], 1 << 20)
    assert "at most" in refusal(data).message


def test_stored_chunks_that_share_their_bytes() -> None:
    stored = bytes(64 << 10)
    pieces = [
        Piece(ChunkType.RAW, 128 * index, 128, b"" if index else stored, 0, len(stored)) for index in range(4)
    ]
    data = make_dmg([Table(0, pieces)], 512)
    assert "uncompressed in a file of" in refusal(data).message


def test_a_file_that_is_cut() -> None:
    data = make_dmg([Table(0, cut(ChunkType.ZLIB, CONTENT, CHUNK))], len(CONTENT) // SECTOR)
    for end in (0, 1, 511, 512, len(data) - 512, len(data) - 1):
        assert refusal(data[:end]).kind is ErrorKind.CORRUPT
    assert refusal(data[1:]).kind is ErrorKind.CORRUPT
