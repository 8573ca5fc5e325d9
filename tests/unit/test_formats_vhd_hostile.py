"""Any bytes at all in a VHD's footers, header or table: a description or a refusal, never anything else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.blockmap import Linear, Table
from drivebay.errors import StorageError
from drivebay.formats import vhd
from drivebay.formats.vhd.footer import DiskType, sealed
from drivebay.formats.vhd.header import ABSENT, NO_LOCATOR, Locator
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.vhd_images import PARENT, PRESENT, make_image, sector

IMAGE = make_image(
    entries=(sector(1), sector(0), ABSENT, ABSENT),
    bitmaps=(PRESENT, b"\x0f"),
    footer={"type": DiskType.DIFFERENCING},
    header={"parent_uuid": PARENT, "locators": (Locator(b"W2ru", 512, 64, 0, 2048),) + (NO_LOCATOR,) * 7},
)
END = len(IMAGE) - 512
NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 511, 512, 1 << 16, 1 << 31, (1 << 32) - 1]) | st.integers(
    0, (1 << 32) - 1
)
FOOTERS = st.lists(st.tuples(st.integers(0, 84), NUMBERS), max_size=2)
HEADERS = st.lists(st.tuples(st.integers(512, 512 + 624) | st.integers(1536, 1548), NUMBERS), max_size=3)


@settings(max_examples=250, deadline=None)
@given(
    footer=FOOTERS, header=HEADERS, seal=st.booleans(), end=st.integers(0, len(IMAGE)) | st.just(len(IMAGE))
)
def test_hostile_bytes(
    footer: list[tuple[int, int]], header: list[tuple[int, int]], seal: bool, end: int
) -> None:
    data = bytearray(IMAGE)
    for offset, number in header:
        data[offset : offset + 4] = number.to_bytes(4, "big")
    for offset, number in footer:
        for base in (0, END):
            data[base + offset : base + offset + 4] = number.to_bytes(4, "big")
    if seal:
        data[:512] = data[END:] = sealed(bytes(data[:512]), 64)
        data[512:1536] = sealed(bytes(data[512:1536]), 36)
    inspect(bytes(data[:end]))


def inspect(data: bytes) -> None:
    error = refusal_of(data)
    if error is not None:
        assert error.path == "image.vhd"
        assert error.offset is not None
        return
    files = MemoryFiles(data, "image.vhd")
    layer = vhd.FORMAT.open(files)
    (segment,) = layer.segments
    if isinstance(segment, Linear):
        assert segment.length <= len(data)
    else:
        assert isinstance(segment, Table)
        assert segment.root + segment.count * 4 <= len(data)
    assert vhd.FORMAT.check is not None
    codes = {finding.code for finding in vhd.FORMAT.check(files, layer)}
    if layer.facts.size < 1 << 30:
        assert is_readable(data) == ("outside" not in codes)
    mended(data)


def mended(data: bytes) -> None:
    """Repairing once is enough."""
    files = MemoryFiles(data, "image.vhd")
    assert vhd.FORMAT.repair is not None
    steps = list(vhd.FORMAT.repair(files, vhd.FORMAT.open(files)))
    after = MemoryFiles(
        files_made_by([c for step in steps for c in step.changes], {"": data})[""], "image.vhd"
    )
    layer = vhd.FORMAT.open(after)
    assert layer.refusal is None
    assert list(vhd.FORMAT.repair(after, layer)) == []


def refusal_of(data: bytes) -> StorageError | None:
    try:
        vhd.FORMAT.open(MemoryFiles(data, "image.vhd"))
    except StorageError as error:
        return error
    return None


def is_readable(data: bytes) -> bool:
    layer = vhd.FORMAT.open(MemoryFiles(data, "image.vhd"))
    try:
        for position in range(0, layer.facts.size, 1 << 16):
            read_layers([(layer, data)], position, 512)
    except CorruptPointerError:
        return False
    return True
