"""Any bytes at all in a VDI header or map: a description or a refusal, never anything else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.blockmap import Table
from drivebay.errors import StorageError
from drivebay.formats import vdi
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.vdi_images import make_image

IMAGE = make_image(entries=(1, 0, 0xFFFFFFFF, 0xFFFFFFFE), units=2, blocks_allocated=2)
NUMBERS = st.sampled_from([0, 1, 511, 512, 1 << 20, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)
PATCHES = st.lists(st.tuples(st.integers(64, 468), NUMBERS), max_size=3)
ENTRIES = st.lists(st.tuples(st.integers(0, 3), NUMBERS), max_size=2)


@settings(max_examples=150, deadline=None)
@given(patches=PATCHES, entries=ENTRIES, end=st.integers(0, len(IMAGE)) | st.just(len(IMAGE)))
def test_hostile_bytes(patches: list[tuple[int, int]], entries: list[tuple[int, int]], end: int) -> None:
    data = bytearray(IMAGE)
    for offset, number in [*patches, *(((1 << 20) + 4 * block, raw) for block, raw in entries)]:
        data[offset : offset + 4] = number.to_bytes(4, "little")
    inspect(bytes(data[:end]))


def inspect(data: bytes) -> None:
    error = refusal_of(data)
    if error is not None:
        assert error.path == "image.vdi"
        assert error.offset is not None
        return
    files = MemoryFiles(data)
    layer = vdi.FORMAT.open(files)
    (table,) = layer.segments
    assert isinstance(table, Table)
    assert table.root + table.count * table.entry.width <= len(data)
    assert vdi.FORMAT.check is not None
    codes = {finding.code for finding in vdi.FORMAT.check(files, layer)}
    assert is_readable(data) == ("outside" not in codes)


def refusal_of(data: bytes) -> StorageError | None:
    try:
        vdi.FORMAT.open(MemoryFiles(data))
    except StorageError as error:
        return error
    return None


def is_readable(data: bytes) -> bool:
    layer = vdi.FORMAT.open(MemoryFiles(data))
    block = layer.facts.block_size
    assert block is not None
    try:
        for position in range(0, layer.facts.size, block):
            read_layers([(layer, data)], position, 512)
    except CorruptPointerError:
        return False
    return True
