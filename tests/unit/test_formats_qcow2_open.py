"""Opening QCOW2: the description that comes out, and a refusal for each field that can be wrong."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from drivebay.blockmap import Allocator, BlockState, Codec, MarkKind, PresencePlace
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import qcow2
from drivebay.formats.qcow2.extensions import (
    BACKING_FORMAT,
    BITMAPS,
    DATA_FILE,
    FEATURE_NAMES,
    Extension,
)
from drivebay.model import Part
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.qcow2_images import (
    BLOCKS,
    CLUSTER,
    COMPRESSED,
    COPIED,
    DATA,
    L1,
    L2,
    make_image,
    own,
    snapshot_entry,
)

PATH = "image.qcow2"


def opened(part: str = "", **fields: Any) -> Any:
    return qcow2.FORMAT.open(MemoryFiles(make_image(**fields), PATH, part=part))


def content(data: bytes, *others: bytes, part: str = "") -> bytes:
    layer = qcow2.FORMAT.open(MemoryFiles(data, PATH, part=part))
    return read_layers([(layer, data, *others)], 0, layer.facts.size)


def test_an_image_becomes_one_table_of_two_levels() -> None:
    layer = opened()
    (table,) = layer.segments
    assert (table.length, table.block, table.root, table.short_tail) == (BLOCKS * CLUSTER, CLUSTER, L1, True)
    assert (table.directory.per_leaf, table.directory.count) == (512, 1)
    assert table.entry.owned == table.directory.entry.owned == COPIED
    assert table.packed.codec is Codec.DEFLATE
    assert layer.facts.variant == "v3"
    assert layer.facts.details["compatibility"] == "1.1"


def test_the_write_plan() -> None:
    plan = opened().plan
    assert plan.allocator is Allocator.REFCOUNT
    assert (plan.unit, plan.align, plan.leaf, plan.zero, plan.absent) == (CLUSTER, CLUSTER, CLUSTER, 1, 0)
    assert plan.leaf_flags == plan.directory_flags == COPIED
    counts = plan.refcounts
    assert (counts.root, counts.table_clusters, counts.cluster, counts.bits) == (CLUSTER, 1, CLUSTER, 16)
    assert counts.place == 48
    assert plan.marks == ()


def test_version_2_has_no_zero_entries() -> None:
    layer = opened(version=2, length=72)
    assert (layer.plan.zero, layer.facts.variant) == (None, "v2")
    assert layer.segments[0].entry.state(DATA | 1) is BlockState.CORRUPT


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        (0, BlockState.ABSENT),
        (DATA, BlockState.DATA),
        (DATA | COPIED, BlockState.DATA),
        (1, BlockState.ZERO),
        (DATA | COPIED | 1, BlockState.ZERO),
        (COMPRESSED | 12345, BlockState.PACKED),
        (COMPRESSED | 1 << 55, BlockState.PACKED),
        (COMPRESSED | 1 << 56, BlockState.CORRUPT),
        (COMPRESSED | 1 << 57, BlockState.CORRUPT),
        (COMPRESSED | 1 << 58, BlockState.PACKED),
        (DATA + 512, BlockState.CORRUPT),
        (COPIED, BlockState.ABSENT),
    ],
)
def test_what_an_entry_says(raw: int, state: BlockState) -> None:
    assert opened().segments[0].entry.state(raw) is state


def test_the_disk_reads_as_its_entries_say() -> None:
    data = make_image(entries={0: own(1), 2: own(0), 3: 1, 7: own(3)})
    wanted = b"".join(bytes([n]) * CLUSTER for n in (2, 0, 1, 0, 0, 0, 0, 4))
    assert content(data) == wanted


def test_a_size_that_is_no_multiple_of_a_sector_is_rounded_up() -> None:
    assert opened(size=BLOCKS * CLUSTER - 100).facts.size == BLOCKS * CLUSTER


def test_entries_of_a_truncated_file_are_corrupt() -> None:
    data = make_image(entries={0: own(3)})[: DATA + 3 * CLUSTER]
    with pytest.raises(CorruptPointerError):
        content(data)


def test_extended_entries_have_bitmaps_beside_them() -> None:
    layer = opened(incompatible=16, cluster_bits=14, l1_offset=1 << 14, refcount_offset=1 << 14)
    (table,) = layer.segments
    assert (table.entry.step, table.directory.per_leaf) == (16, 1024)
    assert (table.presence.place, table.presence.unit) == (PresencePlace.BESIDE, 512)
    assert table.entry.state(0) is BlockState.SPLIT
    plan = layer.plan
    assert (plan.zero, plan.beside, plan.beside_zero) == (0, 0xFFFFFFFF, 0xFFFFFFFF << 32)


@pytest.mark.parametrize(
    ("bits", "shift", "mask", "longest"),
    [(9, 61, 1, 1024), (12, 58, 15, 8192), (16, 54, 255, 131072), (21, 49, 8191, 4 << 20)],
)
def test_compressed_clusters_say_how_many_sectors_they_take(
    bits: int, shift: int, mask: int, longest: int
) -> None:
    places = {"l1_offset": 1 << bits, "refcount_offset": 1 << bits, "l1_size": 100}
    data = make_image(cluster_bits=bits, **places).ljust(5 << 20, b"\0")
    packed = qcow2.FORMAT.open(MemoryFiles(data, PATH)).segments[0].packed
    assert packed.mask == (1 << shift) - 1
    assert (packed.sectors_shift, packed.sectors_mask, packed.longest) == (shift, mask, longest)


def test_zstd_is_told_by_the_compression_type() -> None:
    assert opened(incompatible=8, compression=1).segments[0].packed.codec is Codec.ZSTD


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"incompatible": 1}, "reference counts may be wrong"), ({"incompatible": 2}, "marked as corrupt")],
)
def test_marked_images_are_only_read(fields: dict[str, int], reason: str) -> None:
    layer = opened(**fields)
    assert layer.plan is None
    assert reason in layer.refusal
    assert "drivebay repair" in layer.refusal


def test_an_external_data_file_is_the_second_source() -> None:
    name = Extension(DATA_FILE, b"disk.raw", 0)
    image = make_image(
        incompatible=4, extensions=[name], entries={0: COPIED, 1: CLUSTER | COPIED}, clusters=0
    )
    layer = qcow2.FORMAT.open(MemoryFiles(image, PATH))
    assert layer.sources == ("disk.raw",)
    assert layer.plan is not None
    assert layer.plan.allocator is Allocator.OWN_PLACE
    raw = b"a" * CLUSTER + b"b" * 100
    wanted = raw.ljust(BLOCKS * CLUSTER, b"\0")
    assert content(image, raw) == wanted
    assert layer.segments[0].entry.state(COMPRESSED) is BlockState.CORRUPT  # type: ignore[union-attr]


def test_a_data_file_without_a_name_is_refused() -> None:
    with pytest.raises(StorageError, match="name is not recorded") as caught:
        opened(incompatible=4)
    assert caught.value.kind is ErrorKind.UNSUPPORTED


def test_unknown_features_are_told_by_their_names() -> None:
    names = struct.pack(">BB46s", 0, 40, b"frobnication") + struct.pack(">BB46s", 1, 41, b"other")
    with pytest.raises(StorageError, match=r"frobnication \(bit 40\), without a name \(bit 41\)") as caught:
        opened(incompatible=3 << 40, extensions=[Extension(FEATURE_NAMES, names, 0)])
    assert (caught.value.kind, caught.value.offset) == (ErrorKind.UNSUPPORTED, 72)


def test_unknown_compatible_features_are_no_matter() -> None:
    details = opened(compatible=1 << 9 | 1).facts.details
    assert details["compatible features"] == "lazy refcounts, bit 9"


def test_a_backing_file_and_its_format() -> None:
    extensions = [Extension(0x12345678, b"foreign", 0), Extension(BACKING_FORMAT, b"vpc", 0)]
    facts = opened(backing=b"base.vhd", extensions=extensions).facts
    assert (facts.differencing, facts.parent_names, facts.parent_format) == (True, ("base.vhd",), "vhd")


def test_a_backing_file_of_no_recorded_format() -> None:
    facts = opened(backing=b"../base", version=2, length=72).facts
    assert (facts.parent_names, facts.parent_format) == (("../base",), None)


def test_the_format_in_a_json_name_counts_first() -> None:
    name = b'json:{"driver": "raw", "file": {"driver": "file", "filename": "base"}}'
    facts = opened(backing=name, extensions=[Extension(BACKING_FORMAT, b"qcow2", 0)]).facts
    assert (facts.parent_names, facts.parent_format) == (("base",), "raw")


def test_an_extension_that_reaches_out_is_refused() -> None:
    data = bytearray(make_image(extensions=[Extension(1, b"x" * 16, 0)]))
    data[116:120] = (CLUSTER).to_bytes(4, "big")
    with pytest.raises(StorageError, match="0x1") as caught:
        qcow2.FORMAT.open(MemoryFiles(data, PATH))
    assert caught.value.offset == 112


def test_bitmaps_are_listed_and_go_stale_before_the_first_write() -> None:
    entry = struct.pack(">QIIBBHI", CLUSTER, 1, 0, 1, 16, 4, 0) + b"name"
    where = struct.pack(">IIQQ", 1, 0, len(entry), DATA)
    data = bytearray(make_image(extensions=[Extension(BITMAPS, where, 0)], autoclear=1 | 1 << 7))
    data[DATA : DATA + len(entry)] = entry
    layer = qcow2.FORMAT.open(MemoryFiles(data, PATH))
    assert layer.facts.details["bitmaps"] == "name"
    assert layer.facts.details["state of the bitmaps"] == "consistent"
    assert layer.facts.details["autoclear features"] == "bitmaps, bit 7"
    assert layer.plan is not None
    (mark,) = layer.plan.marks
    assert (mark.offset, mark.kind, mark.opened, mark.closed) == (88, MarkKind.FIXED, bytes(8), b"")


def test_bitmaps_without_their_bit_are_stale() -> None:
    layer = opened(extensions=[Extension(BITMAPS, struct.pack(">IIQQ", 0, 0, 0, DATA), 0)])
    assert layer.facts.details["state of the bitmaps"] == "stale"


def test_a_directory_of_bitmaps_that_is_not_there_is_refused() -> None:
    with pytest.raises(StorageError, match="bitmaps"):
        opened(extensions=[Extension(BITMAPS, struct.pack(">IIQQ", 1, 0, 1 << 20, DATA), 0)])


def test_snapshots_are_parts_and_layers() -> None:
    data = bytearray(
        make_image(entries={0: own(1)}, clusters=6, snapshot_entries=[snapshot_entry(l1_offset=DATA)])
    )
    leaf = DATA + CLUSTER * 4
    data[DATA : DATA + 8] = leaf.to_bytes(8, "big")
    data[leaf : leaf + CLUSTER] = (DATA + 2 * CLUSTER).to_bytes(8, "big").ljust(CLUSTER, b"\0")
    now = qcow2.FORMAT.open(MemoryFiles(data, PATH))
    assert now.facts.parts == (Part("7", "one", BLOCKS * CLUSTER, 1000.5),)
    for part in ("7", "one"):
        layer = qcow2.FORMAT.open(MemoryFiles(data, PATH, part=part))
        assert layer.plan is None
        assert "snapshot" in str(layer.refusal)
        assert content(bytes(data), part=part)[: 2 * CLUSTER] == b"\x03" * CLUSTER + bytes(CLUSTER)
    assert content(bytes(data))[:CLUSTER] == b"\x02" * CLUSTER


def test_a_snapshot_has_a_size_of_its_own() -> None:
    assert opened("one", snapshot_entries=[snapshot_entry(size=CLUSTER)]).facts.size == CLUSTER
    assert opened("one", snapshot_entries=[snapshot_entry(extra=0)]).facts.size == BLOCKS * CLUSTER


def test_a_snapshot_that_is_not_there() -> None:
    with pytest.raises(StorageError, match=r"7 \(one\)") as caught:
        opened("two", snapshot_entries=[snapshot_entry()])
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize(
    "entry",
    [
        snapshot_entry(l1_offset=L1 + 512),
        snapshot_entry(l1_offset=1 << 40),
        snapshot_entry(l1_offset=0),
        snapshot_entry(l1_size=0),
        snapshot_entry(size=1 << 40),
        snapshot_entry(size=0),
    ],
)
def test_a_snapshot_whose_table_cannot_be_is_refused_when_it_is_wanted(entry: bytes) -> None:
    assert len(opened(snapshot_entries=[entry]).facts.parts) == 1
    with pytest.raises(StorageError, match="L1 table has"):
        opened("one", snapshot_entries=[entry])


@pytest.mark.parametrize(
    ("change", "offset"), [((36, 5000), 36), ((12, 0xFFFFFFFF), 0)], ids=["extra data", "lengths"]
)
def test_a_snapshot_table_that_reaches_out_is_refused(change: tuple[int, int], offset: int) -> None:
    entry = bytearray(snapshot_entry())
    struct.pack_into(">I", entry, *change)
    with pytest.raises(StorageError, match="QCOW2 snapshot 0") as caught:
        opened(snapshot_entries=[bytes(entry)])
    assert caught.value.offset == DATA + 4 * CLUSTER + offset


REFUSED = [
    ("version", 1, 4, ErrorKind.UNSUPPORTED),
    ("version", 4, 4, ErrorKind.UNSUPPORTED),
    ("cluster_bits", 8, 20, ErrorKind.CORRUPT),
    ("cluster_bits", 22, 20, ErrorKind.CORRUPT),
    ("cluster_bits", 0xFFFFFFFF, 20, ErrorKind.CORRUPT),
    ("length", 96, 100, ErrorKind.CORRUPT),
    ("length", 108, 100, ErrorKind.CORRUPT),
    ("length", CLUSTER + 8, 100, ErrorKind.CORRUPT),
    ("crypt_method", 1, 32, ErrorKind.UNSUPPORTED),
    ("crypt_method", 2, 32, ErrorKind.UNSUPPORTED),
    ("refcount_order", 7, 96, ErrorKind.CORRUPT),
    ("incompatible", 16, 20, ErrorKind.CORRUPT),
    ("incompatible", 8, 104, ErrorKind.CORRUPT),
    ("compression", 1, 104, ErrorKind.CORRUPT),
    ("size", 0, 24, ErrorKind.CORRUPT),
    ("size", 1 << 63, 24, ErrorKind.CORRUPT),
    ("size", (1 << 63) - 1, 36, ErrorKind.CORRUPT),
    ("size", 512 * CLUSTER + 1, 36, ErrorKind.CORRUPT),
    ("backing_offset", CLUSTER + 1, 8, ErrorKind.CORRUPT),
    ("backing_offset", 8, 8, ErrorKind.CORRUPT),
    ("l1_size", 0, 36, ErrorKind.CORRUPT),
    ("l1_size", (4 << 20) + 1, 36, ErrorKind.CORRUPT),
    ("l1_size", 4 << 20, 40, ErrorKind.CORRUPT),
    ("l1_offset", 0, 40, ErrorKind.CORRUPT),
    ("l1_offset", L1 + 512, 40, ErrorKind.CORRUPT),
    ("l1_offset", 1 << 40, 40, ErrorKind.CORRUPT),
    ("refcount_offset", 0, 48, ErrorKind.CORRUPT),
    ("refcount_offset", CLUSTER + 8, 48, ErrorKind.CORRUPT),
    ("refcount_offset", 1 << 50, 48, ErrorKind.CORRUPT),
    ("refcount_clusters", 0, 56, ErrorKind.CORRUPT),
    ("refcount_clusters", 2049, 56, ErrorKind.CORRUPT),
    ("refcount_clusters", 2048, 48, ErrorKind.CORRUPT),
    ("snapshots", 65537, 60, ErrorKind.CORRUPT),
]


@pytest.mark.parametrize(("field", "value", "offset", "kind"), REFUSED)
def test_a_bad_field_is_refused(field: str, value: int, offset: int, kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        opened(**{field: value})
    error = caught.value
    assert (error.kind, error.offset, error.path) == (kind, offset, PATH)
    assert "; " in error.message


def test_a_snapshot_table_at_an_odd_place_is_refused() -> None:
    with pytest.raises(StorageError, match="snapshot table's offset"):
        opened(snapshots=1, snapshots_offset=DATA + 8)


def test_a_compression_type_that_is_not_known() -> None:
    with pytest.raises(StorageError, match="drivebay knows only 0") as caught:
        opened(incompatible=8, compression=2)
    assert caught.value.kind is ErrorKind.UNSUPPORTED


def test_a_name_of_a_backing_file_that_is_too_long() -> None:
    with pytest.raises(StorageError, match="name's length is 1024"):
        opened(backing=b"x" * 1024)


@pytest.mark.parametrize("length", [4, 71, 103])
def test_a_file_that_ends_within_the_header_is_refused(length: int) -> None:
    with pytest.raises(StorageError, match="ends within the QCOW2 header") as caught:
        qcow2.FORMAT.open(MemoryFiles(make_image()[:length], PATH))
    assert caught.value.offset == length


def test_opening_reads_no_tables() -> None:
    class HeaderOnly(MemoryFiles):
        def read(self, offset: int, length: int) -> bytes:
            assert offset + length <= CLUSTER
            return super().read(offset, length)

    assert qcow2.FORMAT.open(HeaderOnly(make_image(), PATH)).facts.size == BLOCKS * CLUSTER


def test_a_leaf_table_at_an_odd_place_is_corrupt() -> None:
    with pytest.raises(CorruptPointerError):
        content(make_image(l1={0: L2 + 512}))
