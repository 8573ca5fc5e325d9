"""Any bytes at all in headers, descriptors and tables: a description or a refusal, never anything else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.blockmap import Layer
from drivebay.formats.vmdk import FORMAT
from support.interpreter import CorruptPointerError, read_layers
from support.vmdk_images import GRAIN, MIB, Made, codes, gate, made, opened, refusal_of, repaired, with_grains

SPARSE = with_grains(made(), 0, 5, 79)
STREAM = made("streamOptimized")
SPLIT = made("twoGbMaxExtentSparse")
COW = made("vmfsSparse", size=4 * MIB)
FLAT = made("monolithicFlat")
TEXT = bytes(FLAT[""])
NUMBERS = st.sampled_from([0, 1, 127, 128, 1 << 16, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)


def patches(end: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.integers(0, end - 4), NUMBERS), max_size=3)


def patched(files: Made, name: str, changes: list[tuple[int, int]], end: int | None = None) -> Made:
    data = bytearray(files[name])
    for offset, value in changes:
        data[offset : offset + 4] = value.to_bytes(4, "little")
    return files | {name: data[:end]}


def inspect(files: Made) -> None:
    error = refusal_of(files)
    if error is not None:
        assert error.path
        assert error.message
        return
    layer = opened(files)
    assert layer.facts.size > 0
    assert FORMAT.check is not None
    errors = [found for found in FORMAT.check(gate(files), layer) if found.severity.value == "error"]
    if layer.facts.size <= 8 * MIB:
        assert is_readable(layer, files) or errors


def is_readable(layer: Layer, files: Made) -> bool:
    image = (layer, files[""], *(files[name] for name in layer.sources))
    step = min(layer.facts.block_size or GRAIN, layer.facts.size)
    try:
        for position in range(0, layer.facts.size, max(step, layer.facts.size // 64 // step * step)):
            read_layers([image], position, 512)
    except CorruptPointerError:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(header=patches(80), tables=patches(128), end=st.none() | st.integers(0, len(SPARSE[""])))
def test_a_sparse_image(
    header: list[tuple[int, int]], tables: list[tuple[int, int]], end: int | None
) -> None:
    inside = [(21 * 512 + offset % 64 + offset // 64 * 2560, value) for offset, value in tables]
    inspect(patched(SPARSE, "", header + inside, end))


@settings(max_examples=100, deadline=None)
@given(tables=patches(128), beyond=patches(512))
def test_a_repair_leaves_sound_tables(tables: list[tuple[int, int]], beyond: list[tuple[int, int]]) -> None:
    inside = [(21 * 512 + offset % 64 + offset // 64 * 2560, value) for offset, value in tables]
    files = patched(SPARSE, "", inside + [(22 * 512 + offset, value) for offset, value in beyond])
    for _ in range(2):  # what was taken from a copy may turn out to be another one's
        files = {name: bytearray(data) for name, data in repaired(files).items()}
    assert set(codes(files)) <= {"overlapping"}
    opened(files)


@settings(max_examples=60, deadline=None)
@given(header=patches(80), footer=patches(2 * 512), end=st.none() | st.integers(0, len(STREAM[""])))
def test_a_stream(header: list[tuple[int, int]], footer: list[tuple[int, int]], end: int | None) -> None:
    start = len(STREAM[""]) - 3 * 512
    inspect(patched(STREAM, "", header + [(start + offset, value) for offset, value in footer], end))


@settings(max_examples=60, deadline=None)
@given(changes=patches(640), end=st.none() | st.integers(0, 4096))
def test_an_extent_of_a_split_image(changes: list[tuple[int, int]], end: int | None) -> None:
    inspect(patched(SPLIT, "disk-s001.vmdk", changes, end))


@settings(max_examples=60, deadline=None)
@given(changes=patches(32) | patches(2560), end=st.none() | st.integers(0, 2560))
def test_a_cow_extent(changes: list[tuple[int, int]], end: int | None) -> None:
    inspect(patched(COW, "disk-delta.vmdk", changes, end))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_descriptor(data: st.DataObject) -> None:
    lines = TEXT.split(b"\n")
    pieces = st.sampled_from(
        [*lines, b"", b"=", b'"', b"RW", b"RW 8 ZERO", b"\xff\xfe=\xff", b"RW 8 FLAT", b"\0"]
    )
    text = b"\n".join([lines[0], *data.draw(st.lists(pieces | st.binary(max_size=40), max_size=20))])
    inspect(FLAT | {"": bytearray(text)})


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(TEXT) - 1), put=st.binary(min_size=1, max_size=8))
def test_a_descriptor_with_some_bytes_changed(at: int, put: bytes) -> None:
    inspect(FLAT | {"": bytearray(TEXT[:at] + put + TEXT[at + len(put) :])})
