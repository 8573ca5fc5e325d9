"""Sparse extents of every kind: what their headers say, and what their tables mean."""

from __future__ import annotations

import zlib

import pytest

from drivebay.blockmap import Allocator, Match, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import FORMAT
from support.interpreter import CorruptPointerError, Image, read_layers
from support.memory_files import MemoryFiles
from support.vmdk_images import (
    GRAIN,
    MIB,
    NAME,
    Made,
    gate,
    made,
    opened,
    put,
    refusal_of,
    tables_of,
    with_grains,
)


def image(files: Made) -> Image:
    layer = opened(files)
    return layer, files[""], *(files[name] for name in layer.sources)


def content(files: Made, offset: int, length: int) -> bytes:
    return read_layers([image(files)], offset, length)


def table_of(files: Made, number: int = 0) -> Table:
    segment = opened(files).segments[number]
    assert isinstance(segment, Table)
    return segment


def test_grains_are_found_through_two_levels() -> None:
    files = with_grains(made(), 3, 79, 1)
    for block in (3, 79, 1):
        assert content(files, block * GRAIN, GRAIN) == bytes([block + 1]) * GRAIN
    assert content(files, 0, GRAIN) == bytes(GRAIN)


def test_the_plan_of_a_sparse_image() -> None:
    layer = opened(made())
    assert layer.plan is not None
    assert layer.plan.allocator is Allocator.BUMP_EOF
    assert (layer.plan.unit, layer.plan.align, layer.plan.leaf) == (GRAIN, GRAIN, 2048)
    assert layer.plan.zero is None
    assert [mark.offset for mark in layer.plan.marks][-1] == 72
    assert table_of(made()).mirrors == (21 * 512,)


def test_zeroed_grains_need_the_flag() -> None:
    files = made()
    for table in tables_of(files[""]):
        put(files[""], table, 1)
    with pytest.raises(CorruptPointerError):
        content(files, 0, 512)
    files[""][8] |= 4
    assert content(files, 0, 512) == bytes(512)
    layer = opened(files)
    assert layer.plan is not None
    assert layer.plan.zero == 1


def test_the_extents_of_a_split_image_have_tables_of_their_own() -> None:
    files = made("twoGbMaxExtentSparse", size=(2047 << 20) + 3 * MIB)
    layer = opened(files)
    assert layer.sources == ("disk-s001.vmdk", "disk-s002.vmdk")
    assert [segment.start for segment in layer.segments] == [0, 2047 << 20]
    assert table_of(files).mirrors == table_of(files, 1).mirrors == (512,)
    assert table_of(files).root != table_of(files, 1).root
    assert layer.plan is not None
    assert [mark.source for mark in layer.plan.marks] == [0, 0, 1, 2]


def test_an_extent_alone_is_no_image() -> None:
    files = made("twoGbMaxExtentSparse")
    error = refusal_of({"": bytes(files["disk-s001.vmdk"])})
    assert error is not None
    assert error.kind is ErrorKind.INVALID
    assert "descriptor" in error.message


def test_an_embedded_descriptor_s_extent_is_the_file_whatever_its_name() -> None:
    files = made()
    assert FORMAT.open(MemoryFiles(files[""], "renamed.vmdk")).sources == ()


def test_compressed_grains_behind_a_footer() -> None:
    files = made("streamOptimized")
    data = files[""]
    packed = zlib.compress(b"\7" * GRAIN)
    place = len(data)
    data += (64).to_bytes(8, "little") + len(packed).to_bytes(4, "little") + packed
    data += bytes(-len(data) % 512)
    table = len(data)
    data += bytes(2048)
    put(data, table, place // 512)
    put(data, 129 * 512, table // 512)
    data += made("streamOptimized")[""][-3 * 512 :]  # marker, footer, end of stream
    layer = opened(files)
    assert layer.refusal is not None
    assert content(files, 0, GRAIN) == b"\7" * GRAIN
    assert content(files, GRAIN, GRAIN) == bytes(GRAIN)


def test_a_stream_that_was_cut_off() -> None:
    files = made("streamOptimized")
    del files[""][-512:]
    error = refusal_of(files)
    assert error is not None
    assert "footer" in error.message


def test_a_cow_extent() -> None:
    files = made("vmfsSparse", size=8 * MIB)
    extent = files["disk-delta.vmdk"]
    leaf = len(extent)
    extent += bytes(16384)
    extent += b"\5" * 512
    put(extent, 2048 + 4, leaf // 512)
    put(extent, leaf + 4 * 2, (leaf + 16384) // 512)
    position = (4096 + 2) * 512
    assert content(files, position, 512) == b"\5" * 512
    assert content(files, position - 512, 512) == bytes(512)
    layer = opened(files)
    assert layer.plan is not None
    assert layer.plan.counter is not None
    assert (layer.plan.counter.offset, layer.plan.leaf, layer.plan.align) == (28, 16384, 512)


def sesparse(grain: int, number: int) -> Made:
    """A disk of 64 MiB where the table says that ``grain`` lies in the file's grain ``number``."""
    extent = bytearray(2 << 20)
    extent[:8] = bytes.fromhex("bebafeca00000000")
    put(extent, 8, 0x200000001, 131072, 8, 64, width="Q")
    put(extent, 80, 1, 1, width="Q")
    put(extent, 128, 2, 1, 64, 64 * 4, width="Q")
    put(extent, 192, 1024, 3072, width="Q")
    extent[512:520] = bytes.fromhex("fecafeca00000000")
    put(extent, 1024 + 8 * (grain // 4096), 1 << 60 | 2, width="Q")
    entry = 3 << 60 | (number & 0xFFF) << 48 | number >> 12
    put(extent, (64 + 2 * 64) * 512 + 8 * (grain % 4096), entry, width="Q")
    text = b'# Disk DescriptorFile\nCID=00000001\ncreateType="seSparse"\nRW 131072 SESPARSE "disk-se.vmdk"\n'
    return {"": bytearray(text), "disk-se.vmdk": extent}


def test_a_space_efficient_extent() -> None:
    files = sesparse(4099, 5)
    files["disk-se.vmdk"][(1024 + 5 * 8) * 512 : (1024 + 6 * 8) * 512] = b"\6" * 4096
    assert content(files, 4099 * 4096, 4096) == b"\6" * 4096
    assert content(files, 4098 * 4096, 4096) == bytes(4096)
    assert "seSparse" in (opened(files).refusal or "")


def test_the_high_part_of_a_space_efficient_grain_s_number() -> None:
    entry = table_of(sesparse(0, 0)).entry
    assert entry.offset(3 << 60 | 5 << 48 | 2) == 1024 * 512 + (2 * 4096 + 5) * 4096


def test_a_space_efficient_extent_with_a_journal_to_replay() -> None:
    files = sesparse(0, 0)
    files["disk-se.vmdk"][512 + 24] = 1
    error = refusal_of(files)
    assert error is not None
    assert error.kind is ErrorKind.UNSUPPORTED


@pytest.mark.parametrize(
    ("offset", "width", "value", "kind"),
    [
        (4, "I", 4, ErrorKind.UNSUPPORTED),
        (4, "I", 0, ErrorKind.UNSUPPORTED),
        (12, "Q", 0, ErrorKind.CORRUPT),
        (12, "Q", 1, ErrorKind.CORRUPT),
        (20, "Q", 0, ErrorKind.CORRUPT),
        (20, "Q", 100, ErrorKind.CORRUPT),
        (20, "Q", 1 << 40, ErrorKind.CORRUPT),
        (28, "Q", 0, ErrorKind.INVALID),
        (28, "Q", 1 << 50, ErrorKind.CORRUPT),
        (36, "Q", 0, ErrorKind.CORRUPT),
        (36, "Q", 1 << 60, ErrorKind.CORRUPT),
        (44, "I", 0, ErrorKind.CORRUPT),
        (44, "I", 1 << 20, ErrorKind.CORRUPT),
        (56, "Q", 0, ErrorKind.CORRUPT),
        (56, "Q", 1 << 62, ErrorKind.CORRUPT),
        (56, "Q", (1 << 64) - 1, ErrorKind.CORRUPT),
        (73, "I", 0x0A0A0A0A, ErrorKind.CORRUPT),
        (77, "H", 2, ErrorKind.UNSUPPORTED),
        (77, "H", 1, ErrorKind.UNSUPPORTED),
    ],
)
def test_headers_that_are_refused(offset: int, width: str, value: int, kind: ErrorKind) -> None:
    files = made()
    put(files[""], offset, value, width=width)
    error = refusal_of(files)
    assert isinstance(error, StorageError)
    assert error.kind is kind
    assert error.path == NAME
    assert error.offset is not None


@pytest.mark.parametrize(
    ("offset", "value", "reason"), [(4, 3, "version 3"), (48, 0, "redundant"), (48, 1 << 30, "redundant")]
)
def test_headers_that_are_only_read(offset: int, value: int, reason: str) -> None:
    files = made()
    put(files[""], offset, value)
    layer = opened(files)
    assert layer.plan is None
    assert reason in (layer.refusal or "")


def test_extents_with_different_grains_are_only_read() -> None:
    files = made("twoGbMaxExtentSparse", size=(2047 << 20) + 4 * MIB)
    put(files["disk-s002.vmdk"], 20, 64, width="Q")
    layer = opened(files)
    assert layer.plan is None
    assert "different sizes" in (layer.refusal or "")
    assert layer.facts.block_size is None


def test_one_sparse_file_can_t_be_two_extents() -> None:
    files = made("twoGbMaxExtentSparse", size=(2047 << 20) + 4 * MIB)
    files[""] = bytearray(bytes(files[""]).replace(b"s002", b"s001"))
    error = refusal_of(files)
    assert error is not None
    assert "another one" in error.message


@pytest.mark.parametrize("first", ["FLAT", "SPARSE"])
def test_a_file_is_either_flat_or_sparse(first: str) -> None:
    """Else a guest could write the tables of its own image, and so read what it likes of the file."""
    files = made("twoGbMaxExtentSparse", size=(2047 << 20) + 4 * MIB)
    lines = bytes(files[""]).splitlines(keepends=True)
    number, one = next((n, line) for n, line in enumerate(lines) if b"s001" in line)
    flat = b'RW 64 FLAT "' + one.split(b'"')[1] + b'" 0\n'
    lines[number + 1] = flat
    if first == "FLAT":
        lines[number], lines[number + 1] = flat, one
    error = refusal_of(files | {"": bytearray(b"".join(lines))})
    assert error is not None
    assert error.kind is ErrorKind.CORRUPT
    assert "sparse for one extent and flat for another" in error.message


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (b"KDMV", Match.YES),
        (b"COWD", Match.YES),
        (bytes.fromhex("bebafeca00000000"), Match.YES),
        (b"# Disk DescriptorFile\n", Match.YES),
        (b"\xef\xbb\xbf\r\n# disk descriptorfile", Match.YES),
        (b"# a shell script", Match.NO),
        (b"VMDK", Match.NO),
        (bytes.fromhex("bebafeca00000001"), Match.NO),
        (b"", Match.NO),
    ],
)
def test_probe(head: bytes, match: Match) -> None:
    assert FORMAT.probe(head, b"") is match


def test_reading_a_header_reads_no_table() -> None:
    class Counting(MemoryFiles):
        most = 0

        def read(self, offset: int, length: int) -> bytes:
            self.most = max(self.most, offset + length)
            return super().read(offset, length)

    files = Counting(made(size=1 << 38)[""], NAME)
    FORMAT.open(files)
    assert files.most <= 21 * 512


def test_the_gate_is_asked_for_extents() -> None:
    files = made("monolithicFlat")
    del files["disk-flat.vmdk"]
    with pytest.raises(StorageError, match="no such file"):
        FORMAT.open(gate(files))
