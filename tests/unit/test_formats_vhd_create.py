"""New VHD images: what `create` makes opens again as asked, laid out as VirtualBox and Hyper-V do."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import CreateRequest, FileExtent, FileWrite, Layer, ParentLink
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhd
from drivebay.formats.vhd.create import VhdOptions
from drivebay.formats.vhd.sizes import SizeRule
from drivebay.model import NULL_UUID
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, file_made_by

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
IMAGE, MODIFICATION = UUID(int=1 << 100), UUID(int=2 << 100)
LINK = ParentLink(UUID(int=3 << 100), UUID(int=4 << 100), "../base.vhd", absolute="/disks/base.vhd")


def request(
    size: int = 8 * MIB,
    *,
    variant: str | None = None,
    block_size: int | None = None,
    rule: SizeRule = SizeRule.EXACT,
    **fields: Any,
) -> CreateRequest:
    options = VhdOptions(variant, block_size, size_rule=rule)
    return CreateRequest(size, options, IMAGE, MODIFICATION, **fields)


def create(wanted: CreateRequest) -> tuple[Layer, bytes]:
    assert vhd.FORMAT.create is not None
    data = file_made_by(vhd.FORMAT.create(wanted))
    return vhd.FORMAT.open(MemoryFiles(data)), data


@pytest.mark.parametrize("block_size", [64 * KIB, 512 * KIB, 2 * MIB, 64 * MIB])
@pytest.mark.parametrize("variant", ["dynamic", "differencing"])
@pytest.mark.parametrize("size", [512, MIB, 3 * MIB + 512])
def test_a_new_sparse_image_opens_as_asked(variant: str, block_size: int, size: int) -> None:
    parent = LINK if variant == "differencing" else None
    layer, data = create(request(size, variant=variant, block_size=block_size, parent=parent))
    facts = layer.facts
    assert (facts.variant, facts.size, facts.block_size, facts.uuid) == (variant, size, block_size, IMAGE)
    assert facts.differencing is (variant == "differencing")
    assert layer.plan is not None
    assert data[:512] == data[-512:]
    assert read_layers([(layer, data)], 0, size) == bytes(size)
    files = MemoryFiles(data)
    assert vhd.FORMAT.check is not None
    assert vhd.FORMAT.repair is not None
    assert list(vhd.FORMAT.check(files, layer)) == []
    assert list(vhd.FORMAT.repair(files, layer)) == []


def test_a_new_fixed_image() -> None:
    assert vhd.FORMAT.create is not None
    changes = list(vhd.FORMAT.create(request(variant="fixed")))
    assert changes[0] == FileExtent(0, 8 * MIB, reserve=True)
    layer, data = create(request(variant="fixed"))
    assert (len(data), layer.facts.size, layer.facts.variant) == (8 * MIB + 512, 8 * MIB, "fixed")
    assert vhd.FORMAT.check is not None
    assert list(vhd.FORMAT.check(MemoryFiles(data), layer)) == []


def test_a_child_names_its_parent() -> None:
    layer, data = create(request(parent=LINK))
    facts = layer.facts
    assert facts.parent_uuid == LINK.uuid
    assert facts.parent_names == ("../base.vhd", "/disks/base.vhd", "base.vhd")
    assert facts.details["parent locators"] == "W2ku, W2ru"
    assert "..\\base.vhd".encode("utf-16-le") in data
    assert "\\disks\\base.vhd".encode("utf-16-le") in data


def test_a_relative_name_is_written_as_windows_does() -> None:
    link = ParentLink(LINK.uuid, LINK.modification_uuid, "a:b/ünï.vhd")
    layer, data = create(request(parent=link))
    assert ".\\a:b\\ünï.vhd".encode("utf-16-le") in data
    assert layer.facts.parent_names == ("a:b/ünï.vhd", "ünï.vhd")


def test_a_long_path_gets_the_room_it_needs() -> None:
    path = "/".join(["deep" * 40] * 20) + "/base.vhd"
    layer, _ = create(request(parent=ParentLink(LINK.uuid, NULL_UUID, path, absolute=f"/{path}")))
    assert layer.facts.parent_names[:2] == (path, f"/{path}")


def test_the_front_is_written_last() -> None:
    assert vhd.FORMAT.create is not None
    *earlier, last = vhd.FORMAT.create(request(parent=LINK))
    assert isinstance(last, FileWrite)
    assert (last.offset, len(last.data)) == (0, 1536)
    assert all(change.offset > 0 for change in earlier if isinstance(change, FileWrite))


def test_a_long_table_comes_in_pieces() -> None:
    assert vhd.FORMAT.create is not None
    changes = list(vhd.FORMAT.create(request(2040 * GIB, block_size=512 * KIB)))
    table = [change for change in changes[1:-2] if isinstance(change, FileWrite)]
    assert [piece.offset for piece in table] == [1536 + n * MIB for n in range(len(table))]
    assert b"".join(piece.data for piece in table) == b"\xff" * (2040 * 2048 * 4)
    assert max(len(piece.data) for piece in table) <= MIB


@pytest.mark.parametrize(
    ("rule", "variant", "size"),
    [
        (SizeRule.EXACT, "dynamic", 3 * MIB + 512),
        (SizeRule.CHS, "dynamic", 3168256),
        (SizeRule.AZURE, "fixed", 4 * MIB),
    ],
)
def test_the_size_rules(rule: SizeRule, variant: str, size: int) -> None:
    layer, _ = create(request(3 * MIB + 512, rule=rule))
    assert (layer.facts.variant, layer.facts.size) == (variant, size)


def test_a_child_of_a_disk_of_virtual_pc() -> None:
    base, _ = create(request(rule=SizeRule.CHS))
    child, _ = create(request(base.facts.size, rule=SizeRule.CHS, parent=LINK))
    assert child.facts.size == base.facts.size


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (request(0), "multiple of 512"),
        (request(-MIB), "multiple of 512"),
        (request(MIB + 1), "multiple of 512"),
        (request(2040 * GIB + 512), "2040 GiB"),
        (request(2048 * GIB + 512, variant="fixed"), "2048 GiB"),
        (request(2048 * GIB + 512, parent=LINK), "2048 GiB"),
        (request(block_size=32 * KIB), "block size"),
        (request(block_size=128 * MIB), "block size"),
        (request(block_size=3 * MIB), "block size"),
        (request(variant="fixed", block_size=MIB), "no blocks"),
        (request(variant="sparse"), "no variant 'sparse'"),
        (request(variant="differencing"), "needs a parent"),
        (request(variant="fixed", parent=LINK), "can't have a parent"),
        (request(variant="dynamic", parent=LINK), "can't have a parent"),
        (request(variant="dynamic", rule=SizeRule.AZURE), "fixed disks only"),
        (request(parent=LINK, rule=SizeRule.CHS), "as large as its parent"),
        (request(200 * GIB, rule=SizeRule.CHS), "Virtual PC"),
        (request(parent=ParentLink(NULL_UUID, NULL_UUID, "p")), "null UUID"),
        (request(parent=ParentLink(IMAGE, NULL_UUID, "back\\slash.vhd")), "rename"),
        (request(parent=ParentLink(IMAGE, NULL_UUID, "no\udcfftext.vhd")), "rename"),
        (request(parent=ParentLink(IMAGE, NULL_UUID, "x" * 256)), "rename"),
        (request(comment="x"), "comment"),
    ],
)
def test_what_a_vhd_cannot_be_is_refused_before_anything_is_made(wanted: CreateRequest, message: str) -> None:
    assert vhd.FORMAT.create is not None
    with pytest.raises(StorageError, match=message) as caught:
        vhd.FORMAT.create(wanted)
    assert caught.value.kind is ErrorKind.INVALID


def test_children_and_fixed_disks_go_up_to_2_tib() -> None:
    assert vhd.FORMAT.create is not None
    vhd.FORMAT.create(request(2048 * GIB, parent=LINK))
    vhd.FORMAT.create(request(2048 * GIB, variant="fixed"))
