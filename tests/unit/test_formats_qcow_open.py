"""Opening QCOW: the description that comes out, what it means, and a refusal for each wrong field."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivebay.blockmap import BlockState, Codec, Match, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import qcow
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles

PATH = "image.qcow"
CLUSTER = 4096
L1, L2, DATA = 512, 1024, 4096
BLOCKS = 8
FIELDS = {"magic": ">I0", "version": ">I4", "name_offset": ">Q8", "name_length": ">I16", "modified": ">I20"}
FIELDS |= {"size": ">Q24", "cluster_bits": "B32", "l2_bits": "B33", "crypt": ">I36", "l1_offset": ">Q40"}
SOUND = {"magic": 0x514649FB, "version": 1, "name_offset": 0, "name_length": 0, "modified": 0}
SOUND |= {"size": BLOCKS * CLUSTER, "cluster_bits": 12, "l2_bits": 6, "crypt": 0, "l1_offset": L1}


def make_image(
    entries: Mapping[int, int] | None = None, *, l1: int = L2, name: bytes = b"", **fields: int
) -> bytes:
    """Four clusters of data, number n filled with byte n + 1, and an L2 table of 64 entries."""
    data = bytearray(DATA)
    for number in range(4):
        data += bytes([number + 1]) * CLUSTER
    place = {"name_offset": 48, "name_length": len(name)} if name else {}
    for field, value in (SOUND | place | fields).items():
        kind = FIELDS[field].rstrip("0123456789")
        struct.pack_into(kind, data, int(FIELDS[field].removeprefix(kind)), value)
    data[48 : 48 + len(name)] = name
    struct.pack_into(">Q", data, L1, l1)
    for index, raw in (entries or {}).items():
        struct.pack_into(">Q", data, L2 + 8 * index, raw)
    return bytes(data)


def opened(data: bytes) -> tuple[Table, MemoryFiles]:
    files = MemoryFiles(data, PATH)
    (table,) = qcow.FORMAT.open(files).segments
    assert isinstance(table, Table)
    return table, files


def content(data: bytes) -> bytes:
    layer = qcow.FORMAT.open(MemoryFiles(data, PATH))
    return read_layers([(layer, data)], 0, layer.facts.size)


def test_an_image_becomes_one_table_of_two_levels() -> None:
    table, files = opened(make_image())
    assert (table.length, table.block, table.root) == (BLOCKS * CLUSTER, CLUSTER, L1)
    assert table.directory is not None
    assert (table.directory.per_leaf, table.directory.count) == (64, 1)
    assert table.packed is not None
    assert (table.packed.codec, table.packed.mask) == (Codec.DEFLATE, (1 << 51) - 1)
    layer = qcow.FORMAT.open(files)
    assert (layer.plan, layer.facts.variant) == (None, "v1")
    assert "only reads" in str(layer.refusal)


def test_the_disk_reads_as_its_entries_say() -> None:
    deflate = zlib.compressobj(wbits=-12)
    packed = deflate.compress(b"packed!!" * (CLUSTER // 8)) + deflate.flush()
    data = bytearray(make_image({0: DATA + CLUSTER, 2: DATA, 3: 1 << 63 | len(packed) << 51 | DATA + 7000}))
    data[DATA + 7000 : DATA + 7000 + len(packed)] = packed
    wanted = [bytes(data[DATA + CLUSTER : DATA + 2 * CLUSTER]), bytes(CLUSTER), b"\x01" * CLUSTER]
    assert content(bytes(data)) == b"".join(wanted) + b"packed!!" * 512 + bytes(4 * CLUSTER)


def test_a_file_may_end_within_its_last_block() -> None:
    data = make_image({1: DATA + 3 * CLUSTER})[:-1000]
    assert content(data)[CLUSTER : 2 * CLUSTER] == (b"\x04" * (CLUSTER - 1000)).ljust(CLUSTER, b"\0")


def test_no_leaf_table_means_nothing() -> None:
    assert content(make_image({0: DATA}, l1=0)) == bytes(BLOCKS * CLUSTER)


@pytest.mark.parametrize("entry", [DATA + 100, 1 << 40])
def test_entries_that_cannot_be_are_corrupt(entry: int) -> None:
    with pytest.raises(CorruptPointerError):
        content(make_image({0: entry}))


def test_a_flag_in_the_directory_is_corrupt() -> None:
    table, _ = opened(make_image())
    assert table.directory is not None
    assert table.directory.entry.state(1 << 63 | L2) is BlockState.CORRUPT


def test_a_backing_file() -> None:
    facts = qcow.FORMAT.open(MemoryFiles(make_image(name=b"base.qcow"), PATH)).facts
    assert (facts.differencing, facts.parent_names, facts.parent_format) == (True, ("base.qcow",), None)


@pytest.mark.parametrize(
    ("field", "value", "offset", "kind"),
    [
        ("version", 3, 4, ErrorKind.CORRUPT),
        ("cluster_bits", 8, 32, ErrorKind.CORRUPT),
        ("cluster_bits", 17, 32, ErrorKind.CORRUPT),
        ("l2_bits", 5, 33, ErrorKind.CORRUPT),
        ("l2_bits", 14, 33, ErrorKind.CORRUPT),
        ("crypt", 1, 36, ErrorKind.UNSUPPORTED),
        ("size", 0, 24, ErrorKind.CORRUPT),
        ("size", (1 << 64) - 1, 24, ErrorKind.CORRUPT),
        ("size", 1 << 50, 40, ErrorKind.CORRUPT),
        ("l1_offset", 0, 40, ErrorKind.CORRUPT),
        ("l1_offset", 1 << 40, 40, ErrorKind.CORRUPT),
        ("name_offset", 1 << 40, 16, ErrorKind.CORRUPT),
    ],
)
def test_a_bad_field_is_refused(field: str, value: int, offset: int, kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        opened(make_image(**{field: value}))
    assert (caught.value.kind, caught.value.offset, caught.value.path) == (kind, offset, PATH)


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(StorageError, match="name's length is 1024"):
        opened(make_image(name_offset=48, name_length=1024))


def test_a_file_that_ends_within_the_header_is_refused() -> None:
    with pytest.raises(StorageError, match="ends within the QCOW header"):
        opened(make_image()[:47])


def test_version_1_is_no_qcow2() -> None:
    head = make_image()[:4096]
    assert qcow.FORMAT.probe(head, b"") is Match.YES
    assert qcow.FORMAT.probe(make_image(version=2)[:4096], b"") is Match.NO


NUMBERS = st.sampled_from([0, 1, 511, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)


@settings(max_examples=150, deadline=None)
@given(patches=st.lists(st.tuples(st.integers(4, L2 + 60), NUMBERS), max_size=4), end=st.integers(0, 1 << 15))
def test_hostile_bytes(patches: list[tuple[int, int]], end: int) -> None:
    data = bytearray(make_image({0: DATA, 1: DATA + CLUSTER}))
    for offset, number in patches:
        struct.pack_into(">I", data, offset, number)
    error = refusal_of(bytes(data[:end]))
    if error is not None:
        assert error.path == PATH
        assert error.offset is not None
        return
    table, _ = opened(bytes(data[:end]))
    assert table.directory is not None
    assert table.root + table.directory.count * 8 <= len(data)


def refusal_of(data: bytes) -> StorageError | None:
    try:
        qcow.FORMAT.open(MemoryFiles(data, PATH))
    except StorageError as error:
        return error
    return None
