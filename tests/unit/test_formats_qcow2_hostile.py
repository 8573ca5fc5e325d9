"""Any bytes at all in a QCOW2 header or its tables: a layer or a refusal, and findings in bounded time."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.blockmap import Table
from drivebay.errors import StorageError
from drivebay.formats import qcow2
from drivebay.formats.qcow2.extensions import BACKING_FORMAT, Extension
from drivebay.model import Severity
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.patience import processor_time
from support.qcow2_images import BLOCK, CLUSTER, DATA, L1, L2, TABLE, make_image, own, snapshot_entry

PATH = "image.qcow2"
IMAGE = make_image(
    entries={0: own(0), 1: own(2), 5: 1},
    backing=b"base",
    extensions=[Extension(BACKING_FORMAT, b"raw", 0)],
    snapshot_entries=[snapshot_entry(l1_offset=DATA + CLUSTER)],
)
NUMBERS = st.sampled_from([0, 1, 511, 4096, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)
PLACES = st.integers(0, 150) | st.sampled_from(
    [base + extra for base in (TABLE, BLOCK, L1, L2, DATA + 4 * CLUSTER) for extra in range(0, 48, 4)]
)
SECONDS = 5.0  # seconds for an image of a few clusters


@settings(max_examples=250, deadline=None)
@given(
    patches=st.lists(st.tuples(PLACES, NUMBERS), max_size=4),
    end=st.integers(0, len(IMAGE)) | st.just(len(IMAGE)),
)
def test_hostile_bytes(patches: list[tuple[int, int]], end: int) -> None:
    data = bytearray(IMAGE)
    for offset, number in patches:
        struct.pack_into(">I", data, offset, number)
    with processor_time(SECONDS):
        inspect(bytes(data[:end]))


def inspect(data: bytes) -> None:
    error = refusal_of(data)
    if error is not None:
        assert error.path == PATH
        assert error.offset is not None
        assert ";" in error.message
        return
    files = MemoryFiles(data, PATH)
    layer = qcow2.FORMAT.open(files)
    (table,) = layer.segments
    assert isinstance(table, Table)
    assert table.directory is not None
    assert table.root + table.directory.count * 8 <= len(data)
    assert qcow2.FORMAT.check is not None
    assert qcow2.FORMAT.repair is not None
    findings = list(qcow2.FORMAT.check(files, layer))
    assert all(step.changes for step in qcow2.FORMAT.repair(files, layer))
    if not any(found.severity is Severity.ERROR for found in findings):
        assert is_readable(data)


def refusal_of(data: bytes) -> StorageError | None:
    try:
        qcow2.FORMAT.open(MemoryFiles(data, PATH))
    except StorageError as error:
        return error
    return None


def is_readable(data: bytes) -> bool:
    layer = qcow2.FORMAT.open(MemoryFiles(data, PATH))
    block = layer.facts.block_size
    assert block is not None
    try:
        for number in range(8):
            read_layers([(layer, data)], min(number * block, layer.facts.size - 512), 512)
    except CorruptPointerError:
        return False
    return True


@pytest.mark.parametrize("entries", [1 << 16, 1 << 19])
def test_a_directory_that_points_to_one_table_over_and_over(entries: int) -> None:
    data = bytearray(make_image(l1_size=entries, l1_offset=DATA, clusters=2))
    data += struct.pack(">Q", L2) * (entries + 2048)
    with processor_time(SECONDS):
        inspect(bytes(data))


def test_thousands_of_snapshots_with_one_table() -> None:
    tables = [snapshot_entry(l1_offset=DATA, l1_size=512, extra=0)] * 100
    data = bytearray(make_image(clusters=1, snapshot_entries=tables))
    data[DATA : DATA + CLUSTER] = struct.pack(">Q", L2) * 512
    with processor_time(SECONDS):
        inspect(bytes(data).ljust(1 << 20, b"\0"))
