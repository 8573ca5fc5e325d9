"""New Parallels images and bundles, and edits of their headers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import CreateRequest, HeaderEdit, ParentLink
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import parallels
from drivebay.formats.parallels import ParallelsOptions
from drivebay.model import Geometry
from support.memory_files import MemoryFiles, files_made_by
from support.parallels_images import DESCRIPTOR, make_image

NAME = "image.hdd"
SOME = UUID(int=1)
MIB = 1 << 20


def created(size: int = 8 * MIB, request: dict[str, Any] | None = None, **options: Any) -> dict[str, bytes]:
    assert parallels.FORMAT.create is not None
    asked = CreateRequest(size, ParallelsOptions(**options), SOME, SOME, **{"name": NAME, **(request or {})})
    files = files_made_by(parallels.FORMAT.create(asked))
    if options.get("variant") != "bundle":
        return files
    inside = {name.removeprefix(f"{asked.name}/"): data for name, data in files.items() if name}
    return {"": inside.pop(DESCRIPTOR), **inside}


def opened(files: dict[str, bytes]) -> tuple[MemoryFiles, Any]:
    gate = MemoryFiles(files[""], NAME, files)
    return gate, parallels.FORMAT.open(gate)


@pytest.mark.parametrize(("version", "magic"), [(1, "WithoutFreeSpace"), (2, "WithouFreSpacExt")])
@pytest.mark.parametrize("block", [4096, MIB, 63 * 512])
def test_a_new_image_is_empty_and_sound(version: int, magic: str, block: int) -> None:
    gate, layer = opened(created(version=version, block_size=block))
    assert (layer.facts.size, layer.facts.block_size, layer.facts.details["magic"]) == (8 * MIB, block, magic)
    assert layer.plan.first % block == 0
    assert parallels.FORMAT.check is not None
    assert list(parallels.FORMAT.check(gate, layer)) == []


@pytest.mark.parametrize("name", ["disk.hdd", "a & <b>.hdd", "odd \udcff.hdd"])
def test_a_new_bundle(name: str) -> None:
    files = created(variant="bundle", request={"name": name})
    gate, layer = opened(files)
    assert set(files) == {"", "root.hds"}
    assert layer.sources == ("root.hds",)
    assert (layer.facts.variant, layer.facts.size, layer.facts.parts) == ("bundle", 8 * MIB, ())
    assert layer.plan is not None
    assert parallels.FORMAT.check is not None
    assert list(parallels.FORMAT.check(gate, layer)) == []


@pytest.mark.parametrize("sectors", [1, 63, 997, 16384, 1 << 30])
def test_the_geometry_of_a_bundle_is_as_large_as_the_disk(sectors: int) -> None:
    text = created(sectors * 512, variant="bundle", block_size=64 * MIB)[""].decode()
    product = 1
    for name in ("Cylinders", "Heads", "Sectors"):
        product *= int(text.split(f"<{name}>")[1].split("<")[0])
    assert product == sectors


@pytest.mark.parametrize(
    ("size", "request_fields", "options"),
    [
        (0, {}, {}),
        (1000, {}, {}),
        ((1 << 41), {}, {"version": 1}),
        (1 << 60, {}, {}),
        (MIB, {}, {"version": 3}),
        (MIB, {}, {"block_size": 2048}),
        (MIB, {}, {"block_size": 5000}),
        (MIB, {}, {"block_size": 128 * MIB}),
        (MIB, {}, {"variant": "fixed"}),
        (MIB, {"comment": "none"}, {}),
        (MIB, {"parent": ParentLink(SOME, SOME, "base.hdd")}, {}),
    ],
)
def test_what_parallels_cannot_be_is_refused(
    size: int, request_fields: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(StorageError) as caught:
        created(size, request_fields, **options)
    assert caught.value.kind is ErrorKind.INVALID


def edited(files: dict[str, bytes], change: HeaderEdit) -> dict[str, bytes]:
    gate, layer = opened(files)
    assert parallels.FORMAT.edit is not None
    return files_made_by(parallels.FORMAT.edit(gate, layer, change), files)


def test_the_geometry_can_be_changed() -> None:
    wanted = Geometry(32, 8, 63)
    files = {"": make_image(tracks=63, sectors=16384, entries=261, first=2048)}
    assert opened(edited(files, HeaderEdit(pchs=wanted)))[1].facts.pchs == wanted
    assert edited(files, HeaderEdit()) == files


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (HeaderEdit(pchs=Geometry(2, 2, 9)), ErrorKind.INVALID),
        (HeaderEdit(uuid=SOME), ErrorKind.UNSUPPORTED),
        (HeaderEdit(parent_path="x"), ErrorKind.UNSUPPORTED),
    ],
)
def test_what_cannot_be_edited(change: HeaderEdit, kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        edited({"": make_image()}, change)
    assert caught.value.kind is kind


def test_a_bundle_cannot_be_edited() -> None:
    with pytest.raises(StorageError, match="bundle"):
        edited(created(variant="bundle"), HeaderEdit(pchs=Geometry(1, 1, 1)))
