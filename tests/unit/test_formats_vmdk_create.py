"""New VMDK images: their files, their layout, and what can't be made."""

from __future__ import annotations

import struct
import uuid

import pytest

from drivebay.blockmap import CreateRequest, FileExtent, FormatOptions, Linear, ParentLink, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import FORMAT
from drivebay.formats.vmdk.create import CREATABLE, AdapterType, VmdkOptions
from drivebay.model import NULL_UUID, Geometry
from support.vmdk_images import GRAIN, MIB, MODIFICATION, NAME, OWN, codes, made, opened

SPLIT = 2047 << 20
LINK = ParentLink(uuid.UUID(int=7 << 64), uuid.UUID(int=8 << 64), "../base.vmdk", content_id=0xCAFE)


@pytest.mark.parametrize("variant", CREATABLE)
def test_what_was_asked_for_is_what_opens(variant: str) -> None:
    files = made(
        variant,
        comment='a "quoted" \\ comment'.replace('"', "'"),
        pchs=Geometry(9, 16, 63),
        lchs=Geometry(4, 16, 63),
    )
    layer = opened(files)
    facts = layer.facts
    assert (facts.variant, facts.size) == (variant, 5 * MIB)
    assert (facts.uuid, facts.modification_uuid, facts.parent_uuid) == (OWN, MODIFICATION, NULL_UUID)
    assert facts.comment == "a 'quoted' \\ comment"
    assert (facts.pchs, facts.lchs) == (Geometry(9, 16, 63), Geometry(4, 16, 63))
    assert (layer.plan is None) == (variant == "streamOptimized")
    assert codes(files) == []


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("monolithicSparse", set()),
        ("twoGbMaxExtentSparse", {"disk-s001.vmdk", "disk-s002.vmdk", "disk-s003.vmdk"}),
        ("vmfsSparse", {"disk-delta.vmdk"}),
        ("streamOptimized", set()),
    ],
)
def test_the_names_of_further_files(variant: str, names: set[str]) -> None:
    files = made(variant, 2 * SPLIT + MIB)
    assert set(files) - {""} == names


def test_flat_extents_are_reserved_whole() -> None:
    assert FORMAT.create is not None
    request = CreateRequest(
        SPLIT + MIB, VmdkOptions(variant="twoGbMaxExtentFlat"), OWN, MODIFICATION, name=NAME
    )
    extents = [change for change in FORMAT.create(request) if isinstance(change, FileExtent)]
    assert extents == [
        FileExtent(0, SPLIT, reserve=True, file="disk-f001.vmdk"),
        FileExtent(0, MIB, reserve=True, file="disk-f002.vmdk"),
    ]


def test_the_layout_is_virtualbox_s() -> None:
    data = made(size=4 * MIB)[""]
    header = struct.unpack_from("<4sIIQQQQIQQQB4sH", data)
    assert header == (b"KDMV", 1, 3, 8192, 128, 1, 20, 512, 21, 26, 128, 0, b"\n \r\n", 0)
    assert len(data) == GRAIN


def test_the_last_extent_of_a_split_image_is_laid_out_for_its_own_size() -> None:
    files = made("twoGbMaxExtentSparse", 2 * SPLIT + (514 << 20))
    fields = struct.unpack_from("<QQQQIQQ", files["disk-s003.vmdk"], 12)
    assert fields == (514 << 11, 128, 0, 0, 512, 1, 0x46)


def test_directories_of_many_tables() -> None:
    size = (1 << 40) - 512
    assert FORMAT.create is not None
    request = CreateRequest(size, VmdkOptions(), OWN, MODIFICATION, name=NAME)
    writes = [change for change in FORMAT.create(request) if not isinstance(change, FileExtent)]
    directories = [write for write in writes if write.offset and not write.data.startswith(b"#")]
    assert [len(write.data) for write in directories] == [4 * 32768, 4 * 32768]
    entries = struct.unpack("<32768I", directories[0].data)
    assert entries[0] * 512 == directories[0].offset + len(directories[0].data)
    assert entries[-1] * 512 + 2048 == directories[1].offset


def test_options_of_its_own() -> None:
    options = VmdkOptions(
        block_size=8192, adapter_type=AdapterType.BUSLOGIC, hardware_version="21", zeroed_grain=True
    )
    files = made(options=options)
    layer = opened(files)
    assert layer.facts.block_size == 8192
    assert layer.facts.details["adapter type"] == "buslogic"
    assert layer.facts.details["hardware version"] == "21"
    assert layer.facts.details["header version"] == 2
    assert layer.plan is not None
    assert layer.plan.zero == 1


@pytest.mark.parametrize(("variant", "adapter"), [("vmfs", "lsilogic"), ("monolithicFlat", "ide")])
def test_the_adapter_that_a_variant_is_for(variant: str, adapter: str) -> None:
    assert opened(made(variant)).facts.details["adapter type"] == adapter


@pytest.mark.parametrize(
    "variant", ["monolithicSparse", "twoGbMaxExtentSparse", "vmfsSparse", "streamOptimized"]
)
def test_a_child_names_its_parent_in_every_way(variant: str) -> None:
    facts = opened(made(variant, parent=LINK)).facts
    assert facts.differencing
    assert (facts.parent_uuid, facts.parent_modification_uuid) == (LINK.uuid, LINK.modification_uuid)
    assert facts.parent_content_id == 0xCAFE
    assert facts.parent_names == ("../base.vmdk", "base.vmdk")


def test_two_images_have_different_content_ids() -> None:
    other = made(modification_uuid=uuid.UUID(int=9 << 64))
    assert opened(made()).facts.content_id != opened(other).facts.content_id


def test_segments_are_of_the_kind_that_the_variant_says() -> None:
    assert all(isinstance(segment, Linear) for segment in opened(made("vmfs")).segments)
    assert all(isinstance(segment, Table) for segment in opened(made("vmfsSparse")).segments)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"size": 0}, "0 bytes"),
        ({"size": 513}, "513 bytes"),
        ({"size": 256 << 40}, "below"),
        ({"options": VmdkOptions(variant="vmfsSparse"), "size": 2 << 40}, "below"),
        ({"options": VmdkOptions(variant="twoGbMaxExtentFlat"), "size": 8193 * SPLIT}, "below"),
        ({"options": FormatOptions(variant="seSparse")}, "no variant"),
        ({"options": VmdkOptions(block_size=2048)}, "power of two"),
        ({"options": VmdkOptions(block_size=12288)}, "power of two"),
        ({"options": VmdkOptions(block_size=32 << 20)}, "power of two"),
        ({"options": VmdkOptions(variant="vmfs", block_size=65536)}, "no grains"),
        ({"options": VmdkOptions(variant="monolithicFlat"), "parent": LINK}, "can't have a parent"),
        ({"uuid": NULL_UUID}, "null UUID"),
        ({"name": 'a"b.vmdk'}, "quotes"),
        ({"comment": 'a "quoted" one'}, "quotes"),
        ({"comment": "long " * 3000}, "room"),
        ({"pchs": Geometry(17000, 16, 63)}, "geometry"),
        ({"lchs": Geometry(1025, 16, 63)}, "geometry"),
    ],
)
def test_what_can_t_be_made(fields: dict[str, object], match: str) -> None:
    with pytest.raises(StorageError, match=match) as caught:
        made(**fields)  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.INVALID
