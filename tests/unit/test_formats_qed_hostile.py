"""Any bytes at all in a QED header or table: a description or a refusal, never anything else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.errors import StorageError
from drivebay.formats import qed
from drivebay.model import Severity
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.qed_images import CLUSTER, DATA, L1, L2, make_image

IMAGE = make_image(entries={0: DATA, 1: 1, 3: DATA + CLUSTER}, backing=b"base.img", features=3)
NUMBERS = st.sampled_from([0, 1, 511, CLUSTER, L1, L2, DATA, 1 << 31, (1 << 64) - CLUSTER]) | st.integers(
    0, (1 << 64) - 1
)
PATCHES = st.lists(st.tuples(st.integers(4, 80), NUMBERS), max_size=2)
ENTRIES = st.lists(st.tuples(st.sampled_from([L1, L1 + 8, *range(L2, L2 + 64, 8)]), NUMBERS), max_size=3)


@settings(max_examples=200, deadline=None)
@given(patches=PATCHES, entries=ENTRIES, end=st.integers(0, len(IMAGE)) | st.just(len(IMAGE)))
def test_hostile_bytes(patches: list[tuple[int, int]], entries: list[tuple[int, int]], end: int) -> None:
    data = bytearray(IMAGE)
    for offset, number in [*patches, *entries]:
        data[offset : offset + 8] = number.to_bytes(8, "little")
    inspect(bytes(data[:end]))


def inspect(data: bytes) -> None:
    files = MemoryFiles(data, "image.qed")
    error = refusal_of(files)
    if error is not None:
        assert error.path == "image.qed"
        assert error.offset is not None
        return
    layer = qed.FORMAT.open(files)
    assert qed.FORMAT.check is not None
    assert qed.FORMAT.repair is not None
    faults = [found for found in qed.FORMAT.check(files, layer) if found.severity is Severity.ERROR]
    if not is_readable(data):
        assert faults
    steps = list(qed.FORMAT.repair(files, layer))
    for step in steps:
        data = files_made_by(step.changes, {"": data})[""]
    if not any(found.code == "doubled-table" for found in faults):
        assert is_readable(data)


def refusal_of(files: MemoryFiles) -> StorageError | None:
    try:
        qed.FORMAT.open(files)
    except StorageError as error:
        return error
    return None


def is_readable(data: bytes) -> bool:
    layer = qed.FORMAT.open(MemoryFiles(data, "image.qed"))
    block = layer.facts.block_size
    assert block is not None
    try:
        for position in range(0, min(layer.facts.size, 64 * block), block):
            read_layers([(layer, data)], position, 512)
    except CorruptPointerError:
        return False
    return True
