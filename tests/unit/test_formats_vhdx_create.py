"""New VHDX images: their layout, what can't be, and that they open as what was asked for."""

from __future__ import annotations

import struct
from dataclasses import replace
from uuid import UUID

import pytest

from drivebay.blockmap import CreateRequest, FileExtent, FileWrite, FormatOptions, Layer, ParentLink, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhdx
from drivebay.formats.vhdx.create import VhdxOptions
from drivebay.model import NULL_UUID, Finding, Geometry
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, file_made_by
from support.vhdx_images import GUIDS, MIB

K = 1 << 10
DISK, CHANGED = UUID(int=1 << 90), UUID(int=2 << 90)
LINK = ParentLink(UUID(int=3 << 90), UUID(int=4 << 90), "bases/base.vhdx", "/vm/bases/base.vhdx", "vhdx")


def request(size: int = 5 * MIB, options: FormatOptions | None = None, **fields: object) -> CreateRequest:
    return replace(CreateRequest(size, options or VhdxOptions(), DISK, CHANGED), **fields)  # type: ignore[arg-type]


def made(wanted: CreateRequest) -> bytes:
    assert vhdx.FORMAT.create is not None
    return file_made_by(vhdx.FORMAT.create(wanted))


def opened(data: bytes) -> Layer:
    return vhdx.FORMAT.open(MemoryFiles(data))


def findings(data: bytes) -> list[Finding]:
    assert vhdx.FORMAT.check is not None
    return list(vhdx.FORMAT.check(MemoryFiles(data), opened(data)))


@pytest.mark.parametrize(
    ("options", "parent", "variant", "block"),
    [
        (VhdxOptions(), None, "dynamic", 32 * MIB),
        (FormatOptions("dynamic", MIB), None, "dynamic", MIB),
        (VhdxOptions("fixed", 2 * MIB), None, "fixed", 2 * MIB),
        (VhdxOptions(), LINK, "differencing", 2 * MIB),
        (VhdxOptions("differencing", 256 * MIB), LINK, "differencing", 256 * MIB),
    ],
)
def test_a_new_image_is_what_was_asked_for(
    options: FormatOptions, parent: ParentLink | None, variant: str, block: int
) -> None:
    data = made(request(options=options, parent=parent))
    facts = opened(data).facts
    assert (facts.variant, facts.block_size, facts.size) == (variant, block, 5 * MIB)
    assert facts.modification_uuid == CHANGED
    assert facts.details["creator"] == "drivebay"
    assert findings(data) == []
    if parent is None:
        assert read_layers([(opened(data), data)], 0, 5 * MIB) == bytes(5 * MIB)


def test_the_layout() -> None:
    data = made(request())
    assert data[:26] == b"vhdxfile" + "drivebay\0".encode("utf-16-le")
    for offset in (64 * K, 128 * K):
        assert data[offset : offset + 4] == b"head"
        assert struct.unpack_from("<HHIQ", data, offset + 64) == (0, 1, MIB, MIB)
    assert data[192 * K : 256 * K] == data[256 * K : 320 * K]
    regions = [struct.unpack_from("<16sQII", data, 192 * K + 16 + 32 * n) for n in range(2)]
    assert regions == [
        (GUIDS["bat"].bytes_le, 3 * MIB, MIB, 1),
        (GUIDS["metadata"].bytes_le, 2 * MIB, MIB, 1),
    ]
    assert struct.unpack_from("<8sHH", data, 2 * MIB) == (b"metadata", 0, 5)
    assert len(data) == 4 * MIB


def test_the_identifier_comes_last() -> None:
    assert vhdx.FORMAT.create is not None
    *others, last = vhdx.FORMAT.create(request())
    assert isinstance(last, FileWrite)
    assert last.offset == 0
    assert all(change.offset > 0 for change in others if isinstance(change, FileWrite))


def test_a_fixed_image_has_all_its_blocks_in_order() -> None:
    size = (4096 + 3) * MIB  # one bitmap's entry lies between them
    assert vhdx.FORMAT.create is not None
    changes = list(vhdx.FORMAT.create(request(size, VhdxOptions("fixed", MIB))))
    reserved = next(change for change in changes if isinstance(change, FileExtent) and change.reserve)
    assert reserved.length == size
    (bat,) = (c for c in changes if isinstance(c, FileWrite) and c.offset == 3 * MIB)
    entries = struct.unpack(f"<{len(bat.data) // 8}Q", bat.data)
    places = [reserved.offset + n * MIB | 6 for n in range(4099)]
    assert list(entries) == [*places[:4096], 0, *places[4096:]]


def test_the_table_has_room_for_bitmaps_only_where_there_is_a_parent() -> None:
    wanted = {"options": VhdxOptions(block_size=MIB)}
    assert opened(made(request(4097 * MIB, **wanted))).facts.details["BAT entries"] == 4098
    assert opened(made(request(4097 * MIB, parent=LINK, **wanted))).facts.details["BAT entries"] == 8194


def test_a_child_keeps_the_disk_s_id_and_names_its_parent() -> None:
    facts = opened(made(request(parent=LINK))).facts
    assert facts.uuid == LINK.uuid
    assert facts.parent_modification_uuid == LINK.modification_uuid
    assert facts.parent_names == ("bases/base.vhdx", "base.vhdx")
    assert facts.details["parent relative_path"] == ".\\bases\\base.vhdx"


def test_a_child_of_another_format_has_an_id_of_its_own() -> None:
    assert opened(made(request(parent=replace(LINK, format="vdi")))).facts.uuid == DISK


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("base.vhdx", ".\\base.vhdx"),
        ("../a/größe.vhdx", "..\\a\\größe.vhdx"),
        ("/vm/base.vhdx", "\\vm\\base.vhdx"),
    ],
)
def test_the_parent_s_path(path: str, stored: str) -> None:
    facts = opened(made(request(parent=replace(LINK, path=path)))).facts
    assert facts.details["parent relative_path"] == stored
    assert facts.parent_names[0] == path


def test_sector_sizes() -> None:
    data = made(request(options=VhdxOptions(None, MIB, 4096, 4096)))
    layer = opened(data)
    (table,) = layer.segments
    assert isinstance(table, Table)
    assert (layer.facts.sector_size, layer.facts.details["physical sector size"]) == (4096, 4096)
    assert table.interleave == 32768
    assert opened(made(request())).facts.sector_size == 512
    child = made(request(parent=replace(LINK, sector_size=4096)))
    assert opened(child).facts.sector_size == 4096


def test_a_larger_log() -> None:
    facts = opened(made(request(options=VhdxOptions(log_size=3 * MIB)))).facts
    assert (facts.details["log length"], facts.details["metadata offset"]) == (3 * MIB, 4 * MIB)


def test_the_largest_disk() -> None:
    assert vhdx.FORMAT.create is not None
    changes = vhdx.FORMAT.create(request(64 << 40))
    first = next(changes)
    assert first == FileExtent(0, 3 * MIB + 17 * MIB)  # 2^21 blocks and 2^14 bitmaps


IMPOSSIBLE = [
    (request(0), "0 bytes"),
    (request(5 * MIB + 100), "multiple of 512"),
    (request(5 * MIB + 512, VhdxOptions(logical_sector_size=4096)), "multiple of 4096"),
    (request((64 << 40) + 512), "64 TiB"),
    (request(options=VhdxOptions("sparse")), "no variant 'sparse'"),
    (request(options=VhdxOptions("differencing")), "needs a parent"),
    (request(options=VhdxOptions("fixed"), parent=LINK), "can't have a parent"),
    (request(options=VhdxOptions(block_size=512 * K)), "block size of 524288"),
    (request(options=VhdxOptions(block_size=512 * MIB)), "block size of"),
    (request(options=VhdxOptions(block_size=3 * MIB)), "block size of"),
    (request(options=VhdxOptions(logical_sector_size=1024)), "logical sector size of 1024"),
    (request(options=VhdxOptions(physical_sector_size=520)), "physical sector size of 520"),
    (request(options=VhdxOptions(logical_sector_size=4096), parent=LINK), "parent has sectors of 512"),
    (request(options=VhdxOptions(log_size=0)), "log of 0"),
    (request(options=VhdxOptions(log_size=MIB + 1)), "log of"),
    (request(options=VhdxOptions(log_size=4 << 30)), "log of"),
    (request(comment="mine"), "comment"),
    (request(uuid=NULL_UUID), "null UUID"),
    (request(parent=replace(LINK, path="a\\b.vhdx")), "path"),
    (request(parent=replace(LINK, path="")), "path"),
    (request(parent=replace(LINK, path="\udcff.vhdx")), "no text"),
    (request(parent=replace(LINK, path="x" * 40000)), "path"),
]


@pytest.mark.parametrize(("wanted", "what"), IMPOSSIBLE)
def test_what_can_t_be_is_refused_at_once(wanted: CreateRequest, what: str) -> None:
    assert vhdx.FORMAT.create is not None
    with pytest.raises(StorageError) as caught:
        vhdx.FORMAT.create(wanted)
    assert caught.value.kind is ErrorKind.INVALID
    assert what in caught.value.message


def test_a_geometry_is_not_recorded() -> None:
    data = made(request(pchs=Geometry(8, 16, 63)))
    assert opened(data).facts.pchs == Geometry(10, 16, 63)
