"""What a differencing VHD says of its parent: locators of all systems read, and rewritten by an edit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import CreateRequest, FileWrite, FormatOptions, HeaderEdit, Layer, ParentLink
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhd
from drivebay.formats.vhd.footer import DiskType
from drivebay.formats.vhd.header import NO_LOCATOR, Locator
from drivebay.model import NULL_UUID, Geometry
from support.memory_files import MemoryFiles, file_made_by
from support.vhd_images import IMAGE, PARENT, applied, make_fixed, make_image

OTHER = UUID(int=9 << 100)
PATHS = 2048  # where the images of these tests have their locators' paths


def child(paths: Sequence[tuple[bytes, bytes]], name: str = "") -> bytes:
    """A differencing image with locators of these codes and bytes."""
    locators, data, offset = [], b"", PATHS
    for code, path in paths:
        locators.append(Locator(code, 512, len(path), 0, offset))
        data += path.ljust(512, b"\0")
        offset += 512
    locators += [NO_LOCATOR] * (8 - len(locators))
    header = {
        "parent_uuid": PARENT,
        "parent_name": name.encode("utf-16-be").ljust(512, b"\0"),
        "locators": tuple(locators),
    }
    image = make_image(footer={"type": DiskType.DIFFERENCING}, header=header)
    return image[:PATHS] + data + image[PATHS + len(data) :]


def opened(data: bytes, path: str = "/disks/child.vhd") -> tuple[MemoryFiles, Layer]:
    files = MemoryFiles(data, path)
    return files, vhd.FORMAT.open(files)


def names(*paths: tuple[bytes, bytes], name: str = "") -> tuple[str, ...]:
    return opened(child(paths, name))[1].facts.parent_names


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


@pytest.mark.parametrize(
    ("code", "data", "expected"),
    [
        (b"W2ru", utf16(".\\base.vhd"), "base.vhd"),
        (b"W2ru", utf16("..\\up\\base.vhd"), "../up/base.vhd"),
        (b"W2ru", utf16("base.vhd"), "base.vhd"),
        (b"W2ru", utf16(".hidden.vhd"), ".hidden.vhd"),
        (b"W2ku", utf16("C:\\disks\\base.vhd"), "/disks/base.vhd"),
        (b"W2ku", utf16("\\\\?\\C:\\disks\\base.vhd"), "/disks/base.vhd"),
        (b"W2ku", utf16("/vb/base.vhd"), "/vb/base.vhd"),
        (b"W2ku", utf16("C:\\ünï\\base.vhd\0rest"), "/ünï/base.vhd"),
        (b"Wi2r", b".\\old.vhd\0", "old.vhd"),
        (b"Wi2k", b"D:\\old.vhd", "/old.vhd"),
        (b"MacX", b"file:///Volumes/a%20b.vhd", "/Volumes/a b.vhd"),
        (b"MacX", b"file://localhost/a.vhd", "/a.vhd"),
        (b"MacX", b"file://./a.vhd", "a.vhd"),
    ],
)
def test_a_path_becomes_ours(code: bytes, data: bytes, expected: str) -> None:
    assert names((code, data)) == (expected,)


def test_relative_paths_come_first_and_the_bare_name_last() -> None:
    paths = ((b"W2ku", utf16("C:\\a\\base.vhd")), (b"W2ru", utf16("..\\a\\base.vhd")))
    assert names(*paths, name="C:\\a\\base.vhd") == ("../a/base.vhd", "/a/base.vhd", "base.vhd")


def test_the_same_name_is_told_once() -> None:
    assert names((b"W2ru", utf16(".\\base.vhd")), name="base.vhd") == ("base.vhd",)


@pytest.mark.parametrize(
    "data", [b"\0\0", utf16("."), utf16(".."), utf16(".\\"), utf16("C:"), b"\xff", b"\0\xd8\0\xd8"]
)
def test_what_is_no_name(data: bytes) -> None:
    found = names((b"W2ru", data), (b"Mac ", b"alias"), (b"????", b"x"))
    assert all(name.encode() for name in found)
    assert "" not in found


@pytest.mark.parametrize(
    "locator",
    [
        Locator(b"W2ru", 512, 1 << 17, 0, 0),
        Locator(b"W2ru", 512, 20, 0, 1 << 63),
        Locator(b"W2ru", 512, 0, 0, 512),
    ],
)
def test_a_locator_that_leads_nowhere_is_ignored(locator: Locator) -> None:
    header = {"locators": (locator,) + (NO_LOCATOR,) * 7}
    data = make_image(footer={"type": DiskType.DIFFERENCING}, header=header).ljust(1 << 18, b"\0")
    assert opened(data)[1].facts.parent_names == ()


@pytest.mark.parametrize(
    ("space", "length", "room"),
    [(1, 100, 512), (2, 100, 1024), (512, 100, 512), (1024, 42, 1024), (42, 42, 512)],
)
def test_the_room_of_a_locator_in_sectors_or_bytes(space: int, length: int, room: int) -> None:
    assert Locator(b"W2ru", space, length, 0, 0).room == room


def edited(data: bytes, **wanted: Any) -> bytes:
    assert vhd.FORMAT.edit is not None
    return applied(data, vhd.FORMAT.edit(*opened(data), HeaderEdit(**wanted)))


def new_child() -> bytes:
    assert vhd.FORMAT.create is not None
    link = ParentLink(PARENT, NULL_UUID, "base.vhd", absolute="/disks/base.vhd")
    return file_made_by(vhd.FORMAT.create(CreateRequest(1 << 20, FormatOptions(), IMAGE, OTHER, parent=link)))


@pytest.mark.parametrize("image", [make_image(), make_fixed(bytes(4096)), make_fixed(bytes(4096))[:-1]])
def test_a_new_uuid(image: bytes) -> None:
    data = edited(image, uuid=OTHER)
    layer = opened(data)[1]
    assert (layer.facts.uuid, layer.refusal) == (OTHER, None)
    assert layer.facts.details["checksums"] == "right"
    if layer.facts.variant == "dynamic":
        assert data[:512] == data[-512:]


def test_the_front_changes_before_the_end() -> None:
    assert vhd.FORMAT.edit is not None
    changes = list(vhd.FORMAT.edit(*opened(make_image()), HeaderEdit(uuid=OTHER)))
    assert [change.offset for change in changes if isinstance(change, FileWrite)] == [0, 4096]


def test_nothing_to_change() -> None:
    assert edited(make_image()) == make_image()
    assert edited(make_image(), uuid=IMAGE) == make_image()


def test_a_new_parent() -> None:
    layer = opened(edited(new_child(), parent_uuid=OTHER, parent_path="../other/new.vhd"))[1]
    assert layer.facts.parent_uuid == OTHER
    assert layer.facts.parent_names == ("../other/new.vhd", "/other/new.vhd", "new.vhd")
    assert layer.refusal is None


def test_a_new_parent_by_its_whole_path() -> None:
    facts = opened(edited(new_child(), parent_path="/other/new.vhd"))[1].facts
    assert facts.parent_names == ("../other/new.vhd", "/other/new.vhd", "new.vhd")
    assert facts.parent_uuid == PARENT


def test_an_edit_forgets_what_other_locators_say() -> None:
    data = child([(b"W2ru", utf16(".\\old.vhd")), (b"MacX", b"file:///old.vhd")])
    assert opened(edited(data, parent_path="new.vhd"))[1].facts.parent_names == ("new.vhd",)


def test_a_new_geometry() -> None:
    data = edited(make_image(), pchs=Geometry(8, 2, 32))
    assert opened(data)[1].facts.pchs == Geometry(8, 2, 32)


@pytest.mark.parametrize(
    ("data", "wanted", "kind", "message"),
    [
        (make_image(), {"comment": "x"}, ErrorKind.UNSUPPORTED, "comment"),
        (make_image(), {"modification_uuid": OTHER}, ErrorKind.UNSUPPORTED, "modification UUID"),
        (make_image(), {"lchs": Geometry(1, 1, 1)}, ErrorKind.UNSUPPORTED, "logical geometry"),
        (make_image(), {"parent_format": "raw"}, ErrorKind.UNSUPPORTED, "format"),
        (make_image(), {"parent_uuid": OTHER}, ErrorKind.INVALID, "only a differencing"),
        (make_image(), {"parent_path": "x"}, ErrorKind.INVALID, "only a differencing"),
        (make_image(), {"uuid": NULL_UUID}, ErrorKind.INVALID, "null UUID"),
        (make_image(), {"pchs": Geometry(65536, 1, 1)}, ErrorKind.INVALID, "geometry"),
        (make_image(), {"pchs": Geometry(100, 16, 255)}, ErrorKind.INVALID, "geometry"),
        (make_image()[:-512], {"uuid": OTHER}, None, ""),
        (b"x" + make_image()[1:], {"uuid": OTHER}, ErrorKind.STATE, "repair"),
        (child([]), {"parent_path": "x"}, ErrorKind.UNSUPPORTED, "no room"),
        (child([(b"W2ru", utf16("a"))]), {"parent_path": "x/" * 200 + "y"}, ErrorKind.UNSUPPORTED, "no room"),
        (new_child(), {"parent_path": "a\\b"}, ErrorKind.INVALID, "backslash"),
    ],
)
def test_what_an_edit_cannot_do(data: bytes, wanted: Any, kind: ErrorKind | None, message: str) -> None:
    if kind is None:
        assert opened(edited(data, **wanted))[1].facts.uuid == OTHER
        return
    with pytest.raises(StorageError, match=message) as caught:
        edited(data, **wanted)
    assert caught.value.kind is kind


def test_a_geometry_that_is_the_size_stays_the_size() -> None:
    sized = {"creator": b"vpc ", "cylinders": 8, "heads": 2, "sectors": 32}
    data = make_image(footer=sized)
    assert opened(edited(data, pchs=Geometry(4, 4, 32)))[1].facts.size == 4 * 65536
    with pytest.raises(StorageError, match="Virtual PC"):
        edited(data, pchs=Geometry(4, 2, 32))


@pytest.mark.parametrize("offset", [0, 1024, 1536, 1 << 40])
def test_an_edit_never_writes_over_the_headers(offset: int) -> None:
    locators = (Locator(b"W2ru", 512, 8, 0, offset),) + (NO_LOCATOR,) * 7
    data = make_image(footer={"type": DiskType.DIFFERENCING}, header={"locators": locators})
    with pytest.raises(StorageError, match="no room"):
        edited(data, parent_path="new.vhd")
