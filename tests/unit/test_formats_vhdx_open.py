"""Opening VHDX: the description that comes out, and a refusal for each field that can be wrong."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest

from drivebay.blockmap import Allocator, BlockState, Journal, Layer, LogPlace, Match, Table
from drivebay.crc32c import crc32c
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhdx
from drivebay.model import NULL_UUID
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.vhdx_images import (
    BAT,
    DATA,
    DATA_WRITE,
    DISK_ID,
    GUIDS,
    LINKAGE,
    LOG,
    METADATA,
    MIB,
    PARENT,
    PARTIAL,
    PRESENT,
    RATIO,
    ZERO,
    child,
    header,
    items,
    locator,
    make_image,
    metadata_region,
    region_table,
)

ODD = UUID("11111111-2222-3333-4444-555555555555")
K = 1 << 10


def opened(data: bytes) -> Layer:
    return vhdx.FORMAT.open(MemoryFiles(data, "image.vhdx"))


def table_of(layer: Layer) -> Table:
    (table,) = layer.segments
    assert isinstance(table, Table)
    return table


def refused(data: bytes) -> StorageError:
    with pytest.raises(StorageError) as caught:
        opened(data)
    assert caught.value.path == "image.vhdx"
    assert caught.value.offset is not None
    assert "; " in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_checksum_is_the_published_one(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


def test_zeros_at_the_end_count() -> None:
    slow = 0xFFFFFFFF
    for byte in b"drivebay" + bytes(5000):
        slow ^= byte
        for _ in range(8):
            slow = slow >> 1 ^ (0x82F63B78 if slow & 1 else 0)
    assert crc32c(b"drivebay" + bytes(5000)) == slow ^ 0xFFFFFFFF


def test_a_dynamic_image_becomes_one_table() -> None:
    layer = opened(make_image())
    table = table_of(layer)
    assert (table.start, table.length, table.block, table.source) == (0, 4 * MIB, MIB, 0)
    assert (table.root, table.interleave, table.presence) == (BAT, RATIO, None)
    assert layer.refusal is None
    assert layer.replay == ()


def test_the_facts_of_a_dynamic_image() -> None:
    facts = opened(make_image()).facts
    assert (facts.format, facts.variant, facts.size, facts.block_size) == ("vhdx", "dynamic", 4 * MIB, MIB)
    assert (facts.uuid, facts.modification_uuid) == (DISK_ID, DATA_WRITE)
    assert (facts.parent_uuid, facts.parent_modification_uuid) == (NULL_UUID, NULL_UUID)
    assert (facts.differencing, facts.parent_names, facts.sector_size) == (False, (), 512)
    assert facts.details["creator"] == "a test"
    assert facts.details["physical sector size"] == 512
    assert facts.details["log"] == "empty"


def test_the_write_plan() -> None:
    plan = opened(make_image()).plan
    assert plan is not None
    assert (plan.allocator, plan.journal) == (Allocator.BUMP_EOF, Journal.VHDX_LOG)
    assert (plan.unit, plan.align, plan.first, plan.leaf_flags) == (MIB, MIB, DATA, 6)
    assert (plan.zero, plan.absent, plan.punch, plan.marks) == (2, 0, True, ())
    assert plan.log == LogPlace(LOG, MIB, (64 * K, 128 * K))


def test_a_fixed_image_keeps_its_space() -> None:
    layer = opened(make_image(metadata=metadata_region(items(flags=1))))
    assert layer.facts.variant == "fixed"
    assert layer.plan is not None
    assert (layer.plan.zero, layer.plan.punch) == (None, False)


def test_the_facts_of_a_differencing_image() -> None:
    facts = opened(child()).facts
    assert (facts.variant, facts.differencing) == ("differencing", True)
    assert facts.parent_modification_uuid == LINKAGE
    assert facts.parent_names == ("base.vhdx",)


def test_a_parent_s_paths_come_in_the_specification_s_order() -> None:
    values = {
        "absolute_win32_path": "\\\\?\\d:\\vm\\base.vhdx",
        "volume_path": "\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\disks\\base.vhdx",
        "relative_path": "..\\bases\\base.vhdx",
        "parent_linkage": f"{{{LINKAGE}}}".upper(),
    }
    facts = opened(child(values=values)).facts
    assert facts.parent_names == (
        "../bases/base.vhdx",
        "/disks/base.vhdx",
        "/vm/base.vhdx",
        "base.vhdx",
    )
    assert facts.details["parent volume_path"] == values["volume_path"]
    assert facts.parent_modification_uuid == LINKAGE


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (0, BlockState.ABSENT),
        (1, BlockState.ZERO),
        (2, BlockState.ZERO),
        (3, BlockState.ZERO),
        (4, BlockState.CORRUPT),
        (5, BlockState.CORRUPT),
        (6, BlockState.DATA),
        (7, BlockState.CORRUPT),
    ],
)
def test_the_states_of_an_entry(state: int, expected: BlockState) -> None:
    entry = table_of(opened(make_image())).entry
    assert entry.state(DATA | state) is expected
    assert entry.offset(DATA | 0xFFFF8 | state) == DATA


def test_a_block_can_t_lie_in_the_header() -> None:
    entry = table_of(opened(child())).entry
    assert entry.state(PRESENT) is BlockState.CORRUPT
    assert entry.state(PARTIAL) is BlockState.CORRUPT
    assert entry.state(DATA | PARTIAL) is BlockState.SPLIT


def test_data_zeros_and_nothing() -> None:
    data = make_image(entries={0: DATA + MIB | PRESENT, 2: DATA | PRESENT, 3: DATA | ZERO}, units=2)
    content = read_layers([(opened(data), data)], 0, 4 * MIB)
    assert [content[n * MIB] for n in range(4)] == [2, 0, 1, 0]
    assert [content[(n + 1) * MIB - 1] for n in range(4)] == [2, 0, 1, 0]


def test_sectors_of_a_partially_present_block() -> None:
    """The bitmap of a chunk is found behind its blocks' entries; bit 0 of a byte comes first."""
    number = 1
    data = bytearray(child(entries={number: DATA | PARTIAL, RATIO: DATA + MIB | PRESENT}, units=2))
    bitmap = DATA + MIB
    data[bitmap : bitmap + MIB] = bytes(MIB)
    data[bitmap + number * MIB // 512 // 8] = 0b101
    base = make_image(entries=dict.fromkeys(range(4), DATA | PRESENT), units=1).replace(
        b"\x01" * MIB, b"P" * MIB
    )
    chain = [(opened(bytes(data)), bytes(data)), (opened(base), base)]
    content = read_layers(chain, 0, 4 * MIB)
    assert content[MIB : MIB + 2048] == b"\x01" * 512 + b"P" * 512 + b"\x01" * 512 + b"P" * 512
    assert content.count(b"P") == 4 * MIB - 1024


def test_a_partially_present_block_without_a_bitmap_is_corrupt() -> None:
    data = child(entries={0: DATA | PARTIAL}, units=1)
    with pytest.raises(CorruptPointerError):
        read_layers([(opened(data), data)], 0, 512)


def test_the_entries_of_the_second_chunk_come_behind_a_bitmap_s() -> None:
    size = (RATIO + 2) * MIB
    entries = {RATIO + 2: DATA | PRESENT}
    data = make_image(entries=entries, units=1, metadata=metadata_region(items(size)))
    layer = opened(data)
    assert read_layers([(layer, data)], (RATIO + 1) * MIB, 16) == b"\x01" * 16
    assert layer.facts.details["BAT entries"] == RATIO + 3


def test_sectors_of_4096_bytes() -> None:
    layer = opened(make_image(metadata=metadata_region(items(sectors=(4096, 4096)))))
    assert layer.facts.sector_size == 4096
    assert table_of(layer).interleave == 8 * RATIO


def test_probe() -> None:
    image = make_image()
    assert vhdx.FORMAT.probe(image[:4096], image[-512:]) is Match.YES
    assert vhdx.FORMAT.probe(b"", b"") is Match.NO
    assert vhdx.FORMAT.probe(b"conectix" + bytes(504), b"") is Match.NO


# The two headers.

NEW, OLD = header(9, data_write=ODD), header(8)


@pytest.mark.parametrize(
    "both",
    [(NEW, OLD), (OLD, NEW), (NEW, b""), (b"", NEW), (NEW, OLD[:100] + b"x" + OLD[101:])],
)
def test_the_newest_sound_header_counts(both: tuple[bytes, bytes]) -> None:
    assert opened(make_image(headers=both)).facts.modification_uuid == ODD


def test_a_newer_header_that_is_damaged_does_not_count() -> None:
    damaged = NEW[:1000] + b"\x01" + NEW[1001:]
    assert opened(make_image(headers=(damaged, OLD))).facts.modification_uuid == DATA_WRITE


def test_two_equal_headers_are_one() -> None:
    assert opened(make_image(headers=(OLD, OLD))).facts.modification_uuid == DATA_WRITE


BAD_HEADERS = [
    ((b"", b""), ErrorKind.CORRUPT, "neither"),
    ((header(8), header(8, data_write=ODD)), ErrorKind.CORRUPT, "sequence number 8"),
    ((header(8, versions=(0, 2)), b""), ErrorKind.UNSUPPORTED, "version is 2"),
    ((header(8, versions=(1, 1), log_guid=ODD), b""), ErrorKind.UNSUPPORTED, "log version is 1"),
    ((header(8, log=(MIB + 512, LOG)), b""), ErrorKind.CORRUPT, "log length is 1049088"),
    ((header(8, log=(0, LOG), log_guid=ODD), b""), ErrorKind.CORRUPT, "log length is 0"),
    ((header(8, log=(MIB, 0)), b""), ErrorKind.CORRUPT, "log offset is 0"),
    ((header(8, log=(MIB, LOG + 4096)), b""), ErrorKind.CORRUPT, "log offset is"),
    ((header(8, log=(MIB, 1 << 40)), b""), ErrorKind.CORRUPT, "ends at"),
    ((header(8, log=(64 * MIB, LOG)), b""), ErrorKind.CORRUPT, "ends at"),
    ((header(8, log=(MIB, BAT)), b""), ErrorKind.CORRUPT, "begins at"),
]


@pytest.mark.parametrize(("both", "kind", "what"), BAD_HEADERS)
def test_bad_headers_are_refused(both: tuple[bytes, bytes], kind: ErrorKind, what: str) -> None:
    error = refused(make_image(headers=both))
    assert error.kind is kind
    assert what in error.message


def test_an_image_without_a_log_is_read_only() -> None:
    layer = opened(make_image(headers=(header(8, log=(0, 0)), b"")))
    assert layer.plan is None
    assert layer.refusal is not None
    assert "no log" in layer.refusal


def test_a_header_that_can_t_be_counted_on_is_read_only() -> None:
    layer = opened(make_image(headers=(header(2**64 - 1), b"")))
    assert layer.plan is None
    assert "sequence number" in str(layer.refusal)


# The region table.

REGIONS = [(GUIDS["bat"], BAT, MIB, 1), (GUIDS["metadata"], METADATA, MIB, 1)]


def test_the_other_copy_of_the_region_table_serves() -> None:
    damaged = region_table()[:100] + b"\x01" + region_table()[101:]
    assert opened(make_image(tables=(damaged, region_table()))).facts.size == 4 * MIB


def test_an_unknown_region_that_is_not_required_is_skipped() -> None:
    layer = opened(make_image(tables=(region_table([*REGIONS, (ODD, 16 * MIB, MIB, 0)]), b"")))
    assert layer.plan is not None
    assert layer.plan.first == DATA
    layer = opened(make_image(tables=(region_table([*REGIONS, (ODD, DATA, 3 * MIB, 0)]), b"")))
    assert layer.plan is not None
    assert layer.plan.first == DATA + 3 * MIB


def test_regions_need_not_be_marked_as_required() -> None:
    optional = [(guid, offset, length, 0) for guid, offset, length, _ in REGIONS]
    assert opened(make_image(tables=(region_table(optional), b""))).facts.size == 4 * MIB


BAD_REGIONS = [
    ([*REGIONS, (ODD, 16 * MIB, MIB, 1)], ErrorKind.UNSUPPORTED, "marked as required"),
    ([*REGIONS, REGIONS[0]], ErrorKind.CORRUPT, "same GUID"),
    (REGIONS[:1], ErrorKind.CORRUPT, "metadata region is missing"),
    (REGIONS[1:], ErrorKind.CORRUPT, "BAT region is missing"),
    ([(GUIDS["bat"], BAT + 512, MIB, 1), REGIONS[1]], ErrorKind.CORRUPT, "multiples"),
    ([(GUIDS["bat"], BAT, MIB + 1, 1), REGIONS[1]], ErrorKind.CORRUPT, "multiples"),
    ([(GUIDS["bat"], 0, MIB, 1), REGIONS[1]], ErrorKind.CORRUPT, "multiples"),
    ([(GUIDS["bat"], BAT, 2 * MIB, 1), REGIONS[1]], ErrorKind.CORRUPT, "begins at"),
    ([(GUIDS["bat"], LOG, MIB, 1), REGIONS[1]], ErrorKind.CORRUPT, "begins at"),
    ([(GUIDS["bat"], 64 * MIB, MIB, 1), REGIONS[1]], ErrorKind.CORRUPT, "file ends at"),
    ([(GUIDS["bat"], 2**63, MIB, 1), REGIONS[1]], ErrorKind.CORRUPT, "file ends at"),
    ([(GUIDS["bat"], BAT, 0, 1), REGIONS[1]], ErrorKind.CORRUPT, "has 0 bytes"),
]


@pytest.mark.parametrize(("regions", "kind", "what"), BAD_REGIONS)
def test_bad_regions_are_refused(
    regions: list[tuple[UUID, int, int, int]], kind: ErrorKind, what: str
) -> None:
    error = refused(make_image(tables=(region_table(regions), b"")))
    assert error.kind is kind
    assert what in error.message


def test_no_sound_region_table() -> None:
    assert "neither copy" in refused(make_image(tables=(b"", b""))).message


# The metadata.

BAD_ITEMS = [
    (items()[1:], ErrorKind.CORRUPT, "file parameters item is missing"),
    (items()[:2] + items()[3:], ErrorKind.CORRUPT, "virtual disk id item is missing"),
    ([(GUIDS["parameters"], b"\0\0\x10\0", 4), *items()[1:]], ErrorKind.CORRUPT, "4 bytes long"),
    ([*items(), items()[0]], ErrorKind.CORRUPT, "two entries have one id"),
    ([*items(), (ODD, b"x", 4)], ErrorKind.UNSUPPORTED, "marked as required"),
    ([*items(), (ODD, b"x", 5)], ErrorKind.UNSUPPORTED, "marked as required"),
    ([*items(), (GUIDS["locator"], b"x", 5)], ErrorKind.UNSUPPORTED, "marked as required"),
    (items(block=512 * K), ErrorKind.CORRUPT, "block size is 524288"),
    (items(block=512 * MIB), ErrorKind.CORRUPT, "block size is"),
    (items(block=3 * MIB), ErrorKind.CORRUPT, "block size is"),
    (items(block=0), ErrorKind.CORRUPT, "block size is 0"),
    (items(sectors=(1024, 512)), ErrorKind.CORRUPT, "logical sector size is 1024"),
    (items(sectors=(512, 0)), ErrorKind.CORRUPT, "physical sector size is 0"),
    (items(0), ErrorKind.CORRUPT, "disk size is 0"),
    (items(4 * MIB + 100), ErrorKind.CORRUPT, "disk size is"),
    (items(4 * MIB + 512, sectors=(4096, 4096)), ErrorKind.CORRUPT, "disk size is"),
    (items((64 << 40) + 512), ErrorKind.CORRUPT, "disk size is"),
    (items(1 << 40), ErrorKind.CORRUPT, "needs 1048831 entries"),
    (items(flags=2), ErrorKind.CORRUPT, "no parent locator"),
]


@pytest.mark.parametrize(("wanted", "kind", "what"), BAD_ITEMS)
def test_bad_metadata_is_refused(wanted: list[tuple[UUID, bytes, int]], kind: ErrorKind, what: str) -> None:
    error = refused(make_image(metadata=metadata_region(wanted)))
    assert error.kind is kind
    assert what in error.message


def patched(region: bytes, offset: int, piece: bytes) -> bytes:
    return make_image(metadata=region[:offset] + piece + region[offset + len(piece) :])


@pytest.mark.parametrize(
    ("offset", "piece", "what"),
    [
        (0, b"metadatb", "signature"),
        (10, struct.pack("<H", 2048), "2048 entries"),
        (48, struct.pack("<I", 32), "bytes at 32"),
        (48, struct.pack("<I", MIB), "bytes at 1048576"),
        (52, struct.pack("<I", 2 * MIB), "2097152 bytes"),
        (48, struct.pack("<II", 64 * K, 100), "overlaps"),
    ],
)
def test_a_bad_metadata_table_is_refused(offset: int, piece: bytes, what: str) -> None:
    error = refused(patched(metadata_region(items()), offset, piece))
    assert error.kind is ErrorKind.CORRUPT
    assert what in error.message


def test_items_that_need_not_be_understood() -> None:
    more = [*items(), (ODD, b"mine", 1), (UUID(int=5), b"", 0), (GUIDS["size"], b"user's", 1)]
    assert opened(make_image(metadata=metadata_region(more))).facts.size == 4 * MIB


def test_too_many_user_items() -> None:
    users = [(UUID(int=n + 1), b"", 1) for n in range(1025)]
    assert "1025 user items" in refused(make_image(metadata=metadata_region(items() + users))).message


LINK = {"parent_linkage": f"{{{LINKAGE}}}"}
BAD_LOCATORS = [
    (b"short", ErrorKind.CORRUPT, "only 5 bytes"),
    (locator(PARENT, kind=ODD), ErrorKind.UNSUPPORTED, str(ODD)),
    (locator({}), ErrorKind.CORRUPT, "parent_linkage"),
    (locator({"parent_linkage": "nonsense"}), ErrorKind.CORRUPT, "nonsense"),
    (locator(LINK)[:18] + b"\xff\xff" + locator(LINK)[20:], ErrorKind.CORRUPT, "don't fit"),
    (locator(LINK)[:-2], ErrorKind.CORRUPT, "not within"),
    (locator({**LINK, "relative_path": ""}), ErrorKind.CORRUPT, "empty"),
    (locator({"a": "1", "b": "2"}).replace(b"b\0", b"a\0"), ErrorKind.CORRUPT, "two keys"),
]


@pytest.mark.parametrize(("raw", "kind", "what"), BAD_LOCATORS)
def test_bad_locators_are_refused(raw: bytes, kind: ErrorKind, what: str) -> None:
    error = refused(make_image(metadata=metadata_region(items(flags=2, locator=raw))))
    assert error.kind is kind
    assert what in error.message


def test_overlapping_strings_can_t_use_up_the_memory() -> None:
    count = 5000
    entries = b"".join(struct.pack("<IIHH", 20 + n, 21 + n, 60000, 60000) for n in range(count))
    raw = GUIDS["vhdx locator"].bytes_le + struct.pack("<HH", 0, count) + entries + bytes(60000)
    error = refused(make_image(metadata=metadata_region(items(flags=2, locator=raw))))
    assert "over another one" in error.message


@pytest.mark.parametrize("length", [0, 7, 8, 64 * K, 200 * K, MIB, 2 * MIB, 3 * MIB + 10])
def test_truncated_files_are_refused(length: int) -> None:
    assert refused(make_image()[:length]).kind is ErrorKind.CORRUPT


def test_opening_does_not_read_the_table() -> None:
    class NoTable(MemoryFiles):
        def read(self, offset: int, length: int) -> bytes:
            assert offset + length <= LOG or METADATA <= offset < METADATA + MIB
            return super().read(offset, length)

    assert vhdx.FORMAT.open(NoTable(make_image())).facts.size == 4 * MIB
