"""Snapshots within a bundle: the new files and the new descriptor."""

from __future__ import annotations

from uuid import UUID
from xml.etree.ElementTree import Element, fromstring

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import parallels
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.parallels_images import (
    BLOCK,
    ROOT,
    TOP,
    bundle,
    guid,
    image_of,
    make_descriptor,
    make_image,
    make_old,
)

NEW = UUID(int=0xABCDEF << 104)
MIB = 1 << 20


def snapped(files: MemoryFiles, identifier: UUID = NEW) -> tuple[MemoryFiles, Element]:
    """The bundle after one more snapshot, and its descriptor."""
    assert parallels.FORMAT.snapshot is not None
    before = {"": files.data, **files.others}
    changes = parallels.FORMAT.snapshot(files, parallels.FORMAT.open(files), identifier)
    made = files_made_by(changes, {name: data for name, data in before.items() if name})
    assert {name: made[name] for name in files.others} == files.others  # what is kept is not touched
    descriptor = made.pop("")
    return bundle(descriptor, made), fromstring(descriptor)


def part(files: MemoryFiles, name: str) -> MemoryFiles:
    return bundle(bytes(files.data), {key: bytes(data) for key, data in files.others.items()}, name)


def shots(root: Element) -> list[tuple[str | None, str | None]]:
    return [(shot.findtext("GUID"), shot.findtext("ParentGUID")) for shot in root.iterfind("Snapshots/Shot")]


ONE = bundle(make_descriptor([{TOP: "top.hds"}], {TOP: ROOT}), {"top.hds": make_image([1, 2, 3])})


def test_the_newest_state_keeps_the_well_known_name() -> None:
    kept = f"{{{NEW}}}"
    files, root = snapped(ONE)
    assert shots(root) == [(TOP, kept), (kept, ROOT)]  # the newest first, which libphdi relies on
    assert root.find("Snapshots/TopGUID") is None
    top, below = image_of(files), image_of(part(files, kept))
    assert (top[0].facts.parent_part, top[0].sources) == (kept, ("abcdef00.0.hds",))
    assert (below[0].facts.differencing, below[0].sources) == (False, ("top.hds",))
    assert (top[0].plan is not None, below[0].plan) == (True, None)
    assert read_layers([top, below], 0, 4 * BLOCK) == read_layers([image_of(ONE)], 0, 4 * BLOCK)
    assert read_layers([top], 0, 4 * BLOCK) == bytes(4 * BLOCK)


@pytest.mark.parametrize("named", ["", guid(7)])
def test_where_the_top_has_its_own_name_the_next_has_too(named: str) -> None:
    given = {guid(7): ROOT} if named else {}
    descriptor = make_descriptor([{guid(7): "top.hds"}], given, top=named)
    files, root = snapped(bundle(descriptor, {"top.hds": make_image([1])}))
    assert root.findtext("Snapshots/TopGUID") == f"{{{NEW}}}"
    assert shots(root) == [(f"{{{NEW}}}", guid(7)), (guid(7), ROOT)]
    assert parallels.FORMAT.open(files).facts.parent_part == guid(7)


def test_snapshot_upon_snapshot() -> None:
    files = ONE
    for number in range(1, 5):
        files, root = snapped(files, UUID(int=number << 100))
    names = [f"{{{UUID(int=number << 100)}}}" for number in range(1, 5)]
    assert shots(root) == list(zip([TOP, *reversed(names)], [*reversed(names), ROOT], strict=True))
    layers = [image_of(part(files, name)) for name in ["", *reversed(names)]]
    assert [layer.facts.parent_part for layer, *_ in layers] == [*reversed(names), ""]
    assert read_layers(layers, 0, BLOCK) == b"\1" * BLOCK


def test_each_piece_of_a_split_disk_gets_a_file() -> None:
    half = {"sectors": 16, "entries": 2}
    split = bundle(
        make_descriptor([{TOP: "a.raw"}, {TOP: "b.hds"}], {TOP: ROOT}),
        {"a.raw": b"\x11" * 2 * BLOCK, "b.hds": make_image([0, 1], **half)},
    )
    files, root = snapped(split)
    assert [image.findtext("Type") for image in root.iter("Image")] == ["Plain", *["Compressed"] * 3]
    layer = parallels.FORMAT.open(files)
    assert layer.sources == ("abcdef00.0.hds", "abcdef00.1.hds")
    assert layer.plan is not None
    assert [segment.block for segment in layer.segments] == [BLOCK, BLOCK]


def test_a_plain_disk_gets_an_expanding_file() -> None:
    plain = bundle(make_descriptor([{TOP: "a.raw"}], {TOP: ROOT}), {"a.raw": bytes(4 * BLOCK)})
    layer = parallels.FORMAT.open(snapped(plain)[0])
    assert (layer.facts.block_size, layer.plan is not None) == (MIB, True)


@pytest.mark.parametrize("data", [make_image(), make_old(tracks=8)], ids=["newer", "older"])
def test_the_layout_stays(data: bytes) -> None:
    files, _ = snapped(bundle(make_descriptor([{TOP: "top.hds"}], {TOP: ROOT}), {"top.hds": data}))
    made = bytes(files.others["abcdef00.0.hds"])
    assert (made[:16], made[28:32]) == (data[:16], data[28:32])


def test_what_drivebay_does_not_know_survives() -> None:
    text = make_descriptor([{TOP: "top.hds"}], {TOP: ROOT}).decode()
    text = text.replace(
        "</Disk_Parameters>", "<Miscellaneous a='1 &lt; 2'>é &amp; x</Miscellaneous></Disk_Parameters>"
    )
    text = text.replace("</Shot>", "<p:Note xmlns:p='urn:p'>mine</p:Note></Shot>")
    _, root = snapped(bundle(text.encode(), {"top.hds": make_image()}))
    kept = root.find("Disk_Parameters/Miscellaneous")
    assert kept is not None
    assert (kept.text, kept.attrib) == ("é & x", {"a": "1 < 2"})
    assert root.findtext("Snapshots/Shot/{urn:p}Note") == "mine"


def test_a_single_file_and_an_older_state_get_none() -> None:
    files, _ = snapped(ONE)
    for refused in (MemoryFiles(make_image(), "image.hdd"), part(files, f"{{{NEW}}}")):
        with pytest.raises(StorageError, match="can't get a snapshot") as caught:
            snapped(refused)
        assert caught.value.kind is ErrorKind.UNSUPPORTED


def test_an_odd_descriptor_does_not_become_a_broken_one() -> None:
    text = make_descriptor([{TOP: "top.hds"}], {TOP: ROOT}).replace(
        b"<Snapshots>", b"<Snapshots/><Snapshots>"
    )
    files = bundle(text, {"top.hds": make_image()})
    assert parallels.FORMAT.open(files).plan is not None
    with pytest.raises(StorageError, match="two snapshots are called"):
        snapped(files)


def test_a_descriptor_that_would_be_too_large_is_not_written() -> None:
    text = make_descriptor([{TOP: "top.hds"}], {TOP: ROOT})
    full = text.replace(
        b"<Snapshots>", b" " * 10 + b"<Note>" + b"x" * ((4 << 20) - len(text) - 30) + b"</Note><Snapshots>"
    )
    with pytest.raises(StorageError, match="merge some"):
        snapped(bundle(full, {"top.hds": make_image()}))
