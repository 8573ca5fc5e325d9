"""Any bytes at all in a DMG's tables or trailer: a description or a refusal, never anything else."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.blockmap import Packed, Zeros
from drivebay.errors import StorageError
from drivebay.formats import dmg
from drivebay.formats.dmg.tables import ChunkType
from support.dmg_images import CODECS, SECTOR, Piece, Table, make_dmg, packed
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles

CONTENT = bytes(range(256)) * 8
SECTORS = len(CODECS) * 4
PIECES = [packed(kind, 4 * index, CONTENT) for index, kind in enumerate(CODECS)]
NUMBERS = st.sampled_from([0, 1, 3, 4, 5, SECTORS, 511, 512, 1 << 31, 1 << 63, (1 << 64) - 1]) | st.integers(
    0, (1 << 64) - 1
)
TYPES = st.sampled_from([int(kind) for kind in ChunkType]) | st.integers(0, (1 << 32) - 1)
CHUNKS = st.builds(
    lambda piece, kind, changed: Piece(kind, **{**_fields(piece), **changed}),
    st.sampled_from(PIECES),
    TYPES,
    st.dictionaries(st.sampled_from(["sector", "sectors", "offset", "size"]), NUMBERS, max_size=2),
)
TABLE_FIELDS = st.dictionaries(st.sampled_from(["sector", "sectors", "data_offset"]), NUMBERS, max_size=1)
PATCHES = st.lists(st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=8)), max_size=3)


def _fields(piece: Piece) -> dict[str, object]:
    return {name: value for name, value in piece._asdict().items() if name != "type"}


@settings(max_examples=150, deadline=None)
@given(chunks=st.lists(CHUNKS, max_size=4), fields=TABLE_FIELDS)
def test_hostile_chunks(chunks: list[Piece], fields: dict[str, int]) -> None:
    inspect(make_dmg([Table(0, [*PIECES[:2], *chunks], fields=fields), Table(SECTORS, PIECES)], 2 * SECTORS))


@settings(max_examples=150, deadline=None)
@given(patches=PATCHES, end=st.integers(0, 2000))
def test_hostile_trailers(patches: list[tuple[int, bytes]], end: int) -> None:
    data = bytearray(make_dmg([Table(0, PIECES)], SECTORS))
    trailer = len(data) - 512
    for offset, value in patches:
        data[trailer + offset : trailer + offset + len(value)] = value
    inspect(bytes(data))
    inspect(bytes(data[end:]))


@settings(max_examples=100, deadline=None)
@given(patches=PATCHES)
def test_hostile_property_lists(patches: list[tuple[int, bytes]]) -> None:
    data = bytearray(make_dmg([Table(0, PIECES)], SECTORS))
    begin = struct.unpack_from(">Q", data, len(data) - 512 + 216)[0]
    for offset, value in patches:
        data[begin + 3 * offset : begin + 3 * offset + len(value)] = value
    inspect(bytes(data))


def refusal_of(files: MemoryFiles) -> StorageError | None:
    try:
        dmg.FORMAT.open(files)
    except StorageError as error:
        return error
    return None


def inspect(data: bytes) -> None:
    files = MemoryFiles(data, "image.dmg")
    error = refusal_of(files)
    if error is not None:
        assert error.path == "image.dmg"
        assert error.offset is not None
        return
    layer = dmg.FORMAT.open(files)
    (segment,) = layer.segments
    assert isinstance(segment, Packed | Zeros)
    assert (segment.start, segment.length) == (0, layer.facts.size)
    if isinstance(segment, Packed):
        check_runs(segment, len(data))
    assert dmg.FORMAT.check is not None
    list(dmg.FORMAT.check(files, layer))
    try:
        assert len(read_layers([(layer, data)], 0, min(layer.facts.size, 4 * SECTORS * SECTOR))) > 0
    except CorruptPointerError:
        assert isinstance(segment, Packed)


def check_runs(segment: Packed, file_size: int) -> None:
    reached = 0
    for run in segment.runs:
        assert run.start >= reached
        assert run.start % SECTOR == run.length % SECTOR == 0
        assert 0 <= run.offset <= run.offset + run.size <= file_size - 512
        reached = run.start + run.length
    assert reached <= segment.length
