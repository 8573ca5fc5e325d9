"""Any bytes at all in VHDX structures: a description or a refusal, never anything else.

Checksums are made right again, so that damage gets past them.
"""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.blockmap import FileExtent, FileWrite, Layer, Table
from drivebay.errors import StorageError
from drivebay.formats import vhdx
from drivebay.formats.vhdx.overlay import PatchedFiles
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.vhdx_images import (
    BAT,
    DATA,
    LOG,
    LOG_GUID,
    METADATA,
    MIB,
    PARENT,
    PARTIAL,
    PRESENT,
    RATIO,
    header,
    items,
    locator,
    log_entry,
    make_image,
    metadata_region,
    ring,
    with_checksum,
)

K = 1 << 10
ENTRY = log_entry([(BAT, struct.pack("<Q", DATA | PRESENT).ljust(4096, b"\0")), (METADATA + 512 * K, 4096)])
IMAGE = make_image(
    entries={0: DATA | PARTIAL, 1: DATA + MIB | PRESENT, RATIO: DATA + 2 * MIB | PRESENT},
    units=3,
    metadata=metadata_region(items(flags=2, locator=locator(PARENT))),
    headers=(header(7, log_guid=LOG_GUID), header(6)),
    log=ring({0: ENTRY}),
)
SUMMED = ((64 * K, 4 * K), (192 * K, 64 * K), (256 * K, 64 * K), (LOG, len(ENTRY)))
PLACES = st.one_of(
    st.integers(64 * K, 64 * K + 76),
    st.integers(192 * K, 192 * K + 76),
    st.integers(LOG, LOG + 124),
    st.integers(LOG + 4096, LOG + 4104),
    st.integers(METADATA, METADATA + 32 * 7),
    st.integers(METADATA + 64 * K, METADATA + 64 * K + 260),
    st.sampled_from([BAT, BAT + 8, BAT + 16, BAT + 8 * RATIO]),
)
NUMBERS = st.sampled_from(
    [0, 1, 2, 6, 7, 512, 4096, 64 * K, MIB, DATA | PRESENT, 1 << 31, (1 << 32) - 1, 1 << 47, (1 << 64) - 1]
)
PATCHES = st.lists(
    st.tuples(PLACES, st.sampled_from("BHIQ"), NUMBERS | st.integers(0, 2**64 - 1)), max_size=4
)


@settings(max_examples=150, deadline=None)
@given(patches=PATCHES, end=st.just(len(IMAGE)) | st.integers(0, len(IMAGE)))
def test_hostile_bytes(patches: list[tuple[int, str, int]], end: int) -> None:
    data = bytearray(IMAGE)
    for offset, width, number in patches:
        piece = struct.pack("<Q", number)[: struct.calcsize(width)]
        data[offset : offset + len(piece)] = piece
    for offset, length in SUMMED:
        data[offset : offset + length] = with_checksum(bytes(data[offset : offset + length]))
    inspect(bytes(data[:end]))


def inspect(data: bytes) -> None:
    files = MemoryFiles(data, "image.vhdx")
    layer = opened(files)
    if isinstance(layer, StorageError):
        assert layer.path == "image.vhdx"
        assert layer.offset is not None
        return
    check_description(layer, data)
    assert vhdx.FORMAT.check is not None
    assert vhdx.FORMAT.repair is not None
    list(vhdx.FORMAT.check(files, layer))
    list(vhdx.FORMAT.repair(files, layer))


def opened(files: MemoryFiles) -> Layer | StorageError:
    try:
        return vhdx.FORMAT.open(files)
    except StorageError as error:
        return error


def check_description(layer: Layer, data: bytes) -> None:
    (table,) = layer.segments
    assert isinstance(table, Table)
    changes = [change for stage in layer.replay for change in stage]
    assert sum(len(change.data) for change in changes if isinstance(change, FileWrite)) <= MIB + 3 * 4096
    assert all(
        change.offset + change.length <= 1 << 47 for change in changes if isinstance(change, FileExtent)
    )
    view = PatchedFiles(MemoryFiles(data), changes) if changes else MemoryFiles(data)
    if view.size > 64 * MIB:
        return
    seen = view.read(0, view.size)
    for position in range(0, min(layer.facts.size, 4 * MIB), MIB):
        try:
            assert len(read_layers([(layer, seen)], position, 512)) == 512
        except CorruptPointerError:
            continue


def test_the_image_itself_is_sound() -> None:
    layer = vhdx.FORMAT.open(MemoryFiles(IMAGE, "image.vhdx"))
    assert len(layer.replay) == 4
    check_description(layer, IMAGE)
