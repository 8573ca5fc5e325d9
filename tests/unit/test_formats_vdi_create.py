"""New VDI images: what `create` makes opens again as asked, in the layout that VirtualBox 7 uses."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from drivebay.blockmap import CreateRequest, FileExtent, FileWrite, FormatOptions, Layer, ParentLink
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vdi
from drivebay.model import NULL_UUID, Geometry
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, file_made_by

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
IMAGE, MODIFICATION = UUID(int=1 << 100), UUID(int=2 << 100)
LINK = ParentLink(UUID(int=3 << 100), UUID(int=4 << 100), "base.vdi")


def request(
    size: int = 8 * MIB, *, variant: str | None = None, block_size: int | None = None, **fields: Any
) -> CreateRequest:
    return CreateRequest(size, FormatOptions(variant, block_size), IMAGE, MODIFICATION, **fields)


def create(wanted: CreateRequest) -> tuple[Layer, bytes]:
    assert vdi.FORMAT.create is not None
    data = file_made_by(vdi.FORMAT.create(wanted))
    return vdi.FORMAT.open(MemoryFiles(data)), data


@pytest.mark.parametrize("block_size", [512 * KIB, MIB, 2 * MIB, 64 * MIB])
@pytest.mark.parametrize("variant", ["dynamic", "fixed", "differencing"])
@pytest.mark.parametrize("size", [MIB, 3 * MIB + 512])
def test_a_new_image_opens_as_asked(variant: str, block_size: int, size: int) -> None:
    parent = LINK if variant == "differencing" else None
    layer, data = create(request(size, variant=variant, block_size=block_size, parent=parent))
    facts = layer.facts
    assert (facts.variant, facts.size, facts.block_size) == (variant, size, block_size)
    assert (facts.uuid, facts.modification_uuid) == (IMAGE, MODIFICATION)
    assert facts.differencing is (variant == "differencing")
    assert read_layers([(layer, data)], 0, size) == bytes(size)
    assert vdi.FORMAT.check is not None
    assert list(vdi.FORMAT.check(MemoryFiles(data), layer)) == []


def test_the_layout_is_virtualbox_s() -> None:
    layer, data = create(request())
    assert (layer.facts.details["map offset"], layer.facts.details["data offset"]) == (MIB, 2 * MIB)
    assert len(data) == 2 * MIB
    assert np.frombuffer(data, "<u4", 8, MIB).tolist() == [0xFFFFFFFF] * 8
    assert struct.unpack_from("<II", data, 68) == (0x00010001, 400)
    assert struct.unpack_from("<I", data, 360) == struct.unpack_from("<I", data, 468) == (512,)


def test_a_fixed_image_has_its_blocks_in_order() -> None:
    layer, data = create(request(variant="fixed"))
    assert len(data) == 10 * MIB
    assert np.frombuffer(data, "<u4", 8, MIB).tolist() == list(range(8))
    assert layer.facts.details["blocks allocated"] == 8


def test_a_fixed_image_reserves_its_space() -> None:
    assert vdi.FORMAT.create is not None
    changes = list(vdi.FORMAT.create(request(variant="fixed")))
    assert FileExtent(2 * MIB, 8 * MIB, reserve=True) in changes


def test_a_child_names_its_parent() -> None:
    facts = create(request(parent=LINK))[0].facts
    assert facts.variant == "differencing"
    assert (facts.parent_uuid, facts.parent_modification_uuid) == (LINK.uuid, LINK.modification_uuid)


def test_a_child_may_be_as_small_as_a_raw_parent() -> None:
    assert create(request(512, parent=LINK))[0].facts.size == 512


def test_comment_and_geometry_are_kept() -> None:
    wanted = request(comment="für später", pchs=Geometry(8, 16, 63), lchs=Geometry(4, 32, 63))
    facts = create(wanted)[0].facts
    assert (facts.comment, facts.pchs, facts.lchs) == (
        "für später",
        Geometry(8, 16, 63),
        Geometry(4, 32, 63),
    )


def test_the_header_is_written_last() -> None:
    assert vdi.FORMAT.create is not None
    *earlier, last = vdi.FORMAT.create(request())
    assert isinstance(last, FileWrite)
    assert last.offset == 0
    assert all(change.offset >= MIB for change in earlier if isinstance(change, FileWrite))


@pytest.mark.parametrize("variant", ["dynamic", "fixed"])
def test_a_long_map_comes_in_pieces(variant: str) -> None:
    assert vdi.FORMAT.create is not None
    writes = [c for c in vdi.FORMAT.create(request(TIB, variant=variant)) if isinstance(c, FileWrite)]
    pieces = writes[:-1]
    assert [piece.offset for piece in pieces] == [MIB + n * MIB for n in range(4)]
    entries = np.frombuffer(b"".join(piece.data for piece in pieces), "<u4")
    expected = np.arange(MIB) if variant == "fixed" else np.full(MIB, 0xFFFFFFFF)
    assert np.array_equal(entries, expected)
    assert max(len(piece.data) for piece in pieces) <= MIB


def test_the_largest_disks() -> None:
    assert vdi.FORMAT.create is not None
    vdi.FORMAT.create(request(4 * 1024 * TIB - 3 * MIB - 512, block_size=64 * MIB))
    vdi.FORMAT.create(request(1023 * TIB, block_size=MIB))
    with pytest.raises(StorageError, match="use larger blocks"):
        vdi.FORMAT.create(request(1024 * TIB, block_size=MIB))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (request(0), "multiple of 512"),
        (request(-MIB), "multiple of 512"),
        (request(MIB + 1), "multiple of 512"),
        (request(MIB - 512), "multiple of 512"),
        (request(4 * 1024 * TIB - 3 * MIB), "multiple of 512"),
        (request(0, parent=LINK), "multiple of 512"),
        (request(block_size=256 * KIB), "block size"),
        (request(block_size=128 * MIB), "block size"),
        (request(block_size=3 * MIB), "block size"),
        (request(block_size=-MIB), "block size"),
        (request(variant="sparse"), "no variant 'sparse'"),
        (request(variant="differencing"), "needs a parent"),
        (request(variant="fixed", parent=LINK), "can't have a parent"),
        (request(variant="dynamic", parent=LINK), "can't have a parent"),
        (request(parent=ParentLink(NULL_UUID, NULL_UUID, "p")), "null UUID"),
        (request(comment="x" * 256), "shorten"),
        (request(comment="a\0b"), "no NUL"),
        (request(pchs=Geometry(16384, 16, 63)), "limits"),
        (request(lchs=Geometry(-1, 16, 63)), "limits"),
    ],
)
def test_what_vdi_cannot_be_is_refused_before_anything_is_made(wanted: CreateRequest, message: str) -> None:
    assert vdi.FORMAT.create is not None
    with pytest.raises(StorageError, match=message) as caught:
        vdi.FORMAT.create(wanted)
    assert caught.value.kind is ErrorKind.INVALID
