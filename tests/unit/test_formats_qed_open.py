"""Opening QED: the description that comes out, and a refusal for each field that can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from drivebay.blockmap import Allocator, Files, MarkKind
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import qed
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.qed_images import CLUSTER, DATA, L1, L2, TABLE, make_header, make_image


def opened(**fields: Any) -> Any:
    return qed.FORMAT.open(MemoryFiles(make_image(**fields), "image.qed"))


def read(data: bytes, offset: int, length: int) -> bytes:
    layer = qed.FORMAT.open(MemoryFiles(data, "image.qed"))
    return read_layers([(layer, data)], offset, length)


def test_clusters_are_absent_zero_or_data() -> None:
    data = make_image(entries={0: DATA + CLUSTER, 1: 1, 7: DATA})
    assert read(data, 0, CLUSTER) == b"\2" * CLUSTER
    assert read(data, CLUSTER, 6 * CLUSTER) == bytes(6 * CLUSTER)
    assert read(data, 7 * CLUSTER, CLUSTER) == b"\1" * CLUSTER


def test_a_zero_cluster_hides_the_backing_file_and_an_absent_one_shows_it() -> None:
    child = make_image(entries={0: 1}, backing=b"base.qed")
    base = make_image(entries={0: DATA, 1: DATA + CLUSTER})
    chain = [(qed.FORMAT.open(MemoryFiles(data)), data) for data in (child, base)]
    assert read_layers(chain, 0, 2 * CLUSTER) == bytes(CLUSTER) + b"\2" * CLUSTER


def test_a_second_leaf_table() -> None:
    second = DATA + 2 * CLUSTER
    data = bytearray(make_image(tables={1: second}, clusters=4, size=(TABLE + 1) * CLUSTER))
    data[second : second + CLUSTER] = DATA.to_bytes(8, "little") + bytes(CLUSTER - 8)
    assert read(bytes(data), TABLE * CLUSTER, CLUSTER) == b"\1" * CLUSTER


@pytest.mark.parametrize("entry", [DATA + 1, DATA + 512, 3, DATA + 4 * CLUSTER, 1 << 63])
def test_an_entry_that_points_nowhere_cannot_be_read(entry: int) -> None:
    with pytest.raises(CorruptPointerError):
        read(make_image(entries={0: entry}), 0, 512)


def test_the_write_plan() -> None:
    plan = opened().plan
    assert plan.allocator is Allocator.BUMP_EOF
    assert (plan.unit, plan.align, plan.first, plan.leaf) == (CLUSTER, CLUSTER, CLUSTER, CLUSTER)
    assert (plan.zero, plan.absent, plan.marks) == (1, 0, ())


def test_unknown_autoclear_bits_are_cleared_before_the_first_write() -> None:
    (mark,) = opened(autoclear_features=0x30).plan.marks
    assert (mark.offset, mark.kind, mark.opened, mark.closed) == (32, MarkKind.FIXED, bytes(8), b"")


def test_the_need_for_a_check_stays_until_the_verified_image_is_closed() -> None:
    layer = opened(features=3, backing=b"base.raw")
    (mark,) = layer.plan.marks
    assert (mark.offset, mark.opened[0], mark.closed[0]) == (16, 3, 1)
    assert layer.facts.details["needs check"] == "yes"


@pytest.mark.parametrize(
    ("features", "name", "parent", "parent_format"),
    [
        (1, b"base.qcow2", "base.qcow2", None),
        (5, b"base.img", "base.img", "raw"),
        (1, b"file:base.img", "base.img", None),
        (1, "größe".encode(), "größe", None),
    ],
)
def test_the_backing_file(features: int, name: bytes, parent: str, parent_format: str | None) -> None:
    facts = opened(backing=name, features=features).facts
    assert (facts.variant, facts.differencing) == ("differencing", True)
    assert (facts.parent_names, facts.parent_format) == ((parent,), parent_format)


def test_without_the_feature_there_is_no_backing_file() -> None:
    facts = opened(backing=b"base.qcow2", features=0).facts
    assert (facts.variant, facts.differencing, facts.parent_names) == ("dynamic", False, ())


REFUSED = [
    ("cluster_size", 2048, 4, ErrorKind.CORRUPT),
    ("cluster_size", 128 << 20, 4, ErrorKind.CORRUPT),
    ("cluster_size", 5000, 4, ErrorKind.CORRUPT),
    ("cluster_size", 0, 4, ErrorKind.CORRUPT),
    ("table_size", 0, 8, ErrorKind.CORRUPT),
    ("table_size", 3, 8, ErrorKind.CORRUPT),
    ("table_size", 32, 8, ErrorKind.CORRUPT),
    ("header_size", 0, 12, ErrorKind.CORRUPT),
    ("header_size", 2, 40, ErrorKind.CORRUPT),
    ("header_size", 0xFFFFFFFF, 40, ErrorKind.CORRUPT),
    ("features", 8, 16, ErrorKind.UNSUPPORTED),
    ("features", 1 << 63, 16, ErrorKind.UNSUPPORTED),
    ("l1_offset", CLUSTER + 512, 40, ErrorKind.CORRUPT),
    ("l1_offset", 0, 40, ErrorKind.CORRUPT),
    ("l1_offset", DATA + 4 * CLUSTER, 40, ErrorKind.CORRUPT),
    ("l1_offset", (1 << 64) - CLUSTER, 40, ErrorKind.CORRUPT),
    ("size", 0, 48, ErrorKind.CORRUPT),
    ("size", 1000, 48, ErrorKind.CORRUPT),
    ("size", TABLE * TABLE * CLUSTER + 512, 48, ErrorKind.CORRUPT),
]


@pytest.mark.parametrize(("field", "value", "offset", "kind"), REFUSED)
def test_a_bad_field_is_refused(field: str, value: int, offset: int, kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        opened(**{field: value})
    error = caught.value
    assert (error.kind, error.offset, error.path) == (kind, offset, "image.qed")
    assert "; " in error.message


@pytest.mark.parametrize(
    ("fields", "offset", "kind"),
    [
        ({"name_size": 0}, 60, ErrorKind.CORRUPT),
        ({"name_size": 1024}, 60, ErrorKind.CORRUPT),
        ({"name_offset": 12}, 56, ErrorKind.CORRUPT),
        ({"name_offset": CLUSTER - 4}, 56, ErrorKind.CORRUPT),
        ({"name_offset": 0xFFFFFFFF}, 56, ErrorKind.CORRUPT),
        ({"backing": b"a\0b"}, 64, ErrorKind.CORRUPT),
        ({"backing": b"nbd://host/disk"}, 64, ErrorKind.UNSUPPORTED),
    ],
)
def test_a_bad_backing_name_is_refused(fields: dict[str, Any], offset: int, kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        opened(**{"backing": b"base.img"} | fields)
    assert (caught.value.kind, caught.value.offset) == (kind, offset)


@pytest.mark.parametrize("length", [4, 63, 64, CLUSTER, L2 - 1])
def test_a_short_file_is_refused(length: int) -> None:
    with pytest.raises(StorageError) as caught:
        qed.FORMAT.open(MemoryFiles(make_image()[:length], "image.qed"))
    assert caught.value.kind is ErrorKind.CORRUPT
    assert caught.value.offset == (length if length < 64 else 40)


def test_opening_reads_only_the_header() -> None:
    class HeaderOnly(MemoryFiles):
        def read(self, offset: int, length: int) -> bytes:
            assert offset + length <= L1
            return super().read(offset, length)

    files: Files = HeaderOnly(make_image(backing=b"base.img"), "image.qed")
    assert qed.FORMAT.open(files).facts.size == 8 * CLUSTER


def test_huge_tables_are_read_only() -> None:
    """A new table is made in memory, and the format lets it have 1 GiB."""
    for cluster, writable in ((4 << 20, True), (8 << 20, False), (64 << 20, False)):
        header = make_header(cluster_size=cluster, table_size=16, l1_offset=cluster, size=cluster, features=0)
        files = MemoryFiles(header.pack(), "image.qed")
        files.size = 40 * cluster
        layer = qed.FORMAT.open(files)
        assert (layer.plan is not None) is writable
        assert writable or f"{16 * cluster} bytes each" in str(layer.refusal)
