"""Any bytes at all in a Parallels header, table or descriptor: a description or a refusal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.errors import StorageError
from drivebay.formats import parallels
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.parallels_images import BLOCK, ROOT, TOP, bundle, guid, make_descriptor, make_image, make_old

NUMBERS = st.sampled_from([0, 1, 2, 63, 511, 1 << 20, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)
PATCHES = st.lists(st.tuples(st.integers(4, 24), NUMBERS), max_size=3)
IMAGES = [make_image([1, 0, 2, 3], extension=8), make_old([1, 64, 0, 127])]


@settings(max_examples=200, deadline=None)
@given(image=st.sampled_from(IMAGES), patches=PATCHES, cut=st.integers(0, 4 * BLOCK) | st.just(0))
def test_hostile_numbers(image: bytes, patches: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(image)
    for index, number in patches:
        data[4 * index : 4 * index + 4] = number.to_bytes(4, "little")
    inspect(bytes(data[: len(data) - cut]))


def inspect(data: bytes) -> None:
    files = MemoryFiles(data, "image.hdd")
    error = refusal_of(files)
    if error is not None:
        assert error.path == "image.hdd"
        assert error.offset is not None
        return
    layer = parallels.FORMAT.open(files)
    assert parallels.FORMAT.check is not None
    assert parallels.FORMAT.repair is not None
    codes = {found.code for found in parallels.FORMAT.check(files, layer)}
    assert is_readable(data) or "outside" in codes
    for step in parallels.FORMAT.repair(files, layer):
        data = files_made_by(step.changes, {"": data})[""]
    assert is_readable(data)


def refusal_of(files: MemoryFiles) -> StorageError | None:
    try:
        parallels.FORMAT.open(files)
    except StorageError as error:
        return error
    return None


def is_readable(data: bytes) -> bool:
    layer = parallels.FORMAT.open(MemoryFiles(data, "image.hdd"))
    block = layer.facts.block_size
    assert block is not None
    try:
        for position in range(0, min(layer.facts.size, 4000 * block), block):
            read_layers([(layer, data)], position, 512)
    except CorruptPointerError:
        return False
    return True


DESCRIPTOR = make_descriptor([{guid(1): "base.hds", TOP: "top.hds"}], {guid(1): ROOT, TOP: guid(1)})
SCRAPS = st.sampled_from(
    [b"", b"<", b"&", b"0", b"-1", b"9" * 30, b"<Image/>", b"\0", b"\xff", TOP.encode(), b"]]>"]
)


@settings(max_examples=200, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, len(DESCRIPTOR)), st.integers(0, 40), SCRAPS), max_size=3))
def test_hostile_descriptors(places: list[tuple[int, int, bytes]]) -> None:
    text = DESCRIPTOR
    for start, length, scrap in places:
        text = text[:start] + scrap + text[start + length :]
    gate = bundle(text, {"base.hds": IMAGES[0], "top.hds": make_image()})
    error = refusal_of(gate)
    if error is not None:
        assert "; " in error.message
        return
    layer = parallels.FORMAT.open(gate)
    assert layer.facts.size == sum(segment.length for segment in layer.segments)
