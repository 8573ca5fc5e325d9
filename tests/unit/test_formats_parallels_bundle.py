"""Parallels bundles: snapshots, split disks, and descriptors that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from drivebay.blockmap import Allocator, Match
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import parallels
from support.interpreter import read_layers
from support.parallels_images import (
    BLOCK,
    DESCRIPTOR,
    ROOT,
    SECTORS,
    TOP,
    bundle,
    guid,
    image_of,
    make_descriptor,
    make_image,
    make_old,
)

ONE = make_descriptor([{TOP: "top.hds"}], {TOP: ROOT})
SNAPSHOTS = make_descriptor(
    [{guid(1): "base.hds", guid(2): "middle.hds", TOP: "top.hds"}],
    {guid(1): ROOT, guid(2): guid(1), TOP: guid(2)},
)
FILES = {
    "base.hds": make_image([1, 2, 3]),
    "middle.hds": make_image([0, 1]),
    "top.hds": make_image([0, 0, 0, 1]),
}


def opened(descriptor: bytes, files: dict[str, bytes] | None = None, part: str = "") -> Any:
    return parallels.FORMAT.open(bundle(descriptor, FILES if files is None else files, part))


def test_the_descriptor_is_recognised() -> None:
    assert parallels.FORMAT.probe(ONE[:4096], ONE[-512:]) is Match.YES
    assert parallels.FORMAT.probe(b"\xef\xbb\xbf" + ONE, b"") is Match.YES
    assert parallels.FORMAT.probe(b"text <Parallels_disk_image>", b"") is Match.NO
    assert parallels.FORMAT.probe(b"<?xml version='1.0'?><other/>", b"") is Match.NO


def test_a_bundle_without_snapshots() -> None:
    layer = opened(ONE)
    assert (layer.facts.variant, layer.facts.differencing, layer.facts.parts) == ("bundle", False, ())
    assert layer.sources == ("top.hds",)
    assert [(mark.offset, mark.source) for mark in layer.plan.marks] == [(44, 1)]


def test_a_chain_of_snapshots_is_read_through_the_bundle_itself() -> None:
    layers = [image_of(bundle(SNAPSHOTS, FILES, part)) for part in ("", guid(2), guid(1))]
    facts = [layer.facts for layer, *_ in layers]
    assert [fact.parent_part for fact in facts] == [guid(2), guid(1), ""]
    assert [fact.parent_names for fact in facts] == [(DESCRIPTOR,), (DESCRIPTOR,), ()]
    assert [part.id for part in facts[0].parts] == [guid(1), guid(2)]
    content = read_layers(layers, 0, 4 * BLOCK)
    assert content == b"\1" * BLOCK + b"\1" * BLOCK + b"\3" * BLOCK + b"\1" * BLOCK


def test_only_the_newest_state_is_written() -> None:
    assert opened(SNAPSHOTS).plan is not None
    older = opened(SNAPSHOTS, part=guid(1).upper())
    assert older.plan is None
    assert "snapshot" in older.refusal


def test_the_top_may_be_named() -> None:
    shots = {guid(1): ROOT, guid(2): guid(1)}
    images = {guid(1): "base.hds", guid(2): "top.hds"}
    assert opened(make_descriptor([images], shots, top=guid(2))).sources == ("top.hds",)
    with pytest.raises(StorageError, match="which of its snapshots is the newest"):
        opened(make_descriptor([images], shots))


def test_a_single_image_needs_no_snapshots() -> None:
    assert opened(make_descriptor([{guid(7): "top.hds"}], {})).sources == ("top.hds",)


def test_a_split_disk_of_plain_and_expanding_pieces() -> None:
    storages = [{TOP: "a.raw"}, {TOP: "b.hds"}]
    half = {"sectors": 2 * SECTORS, "entries": 2}
    files = {"a.raw": b"\x11" * 2 * BLOCK, "b.hds": make_image([0, 1], **half)}
    descriptor = make_descriptor(storages, {TOP: ROOT})
    image = image_of(bundle(descriptor, files))
    assert read_layers([image], 0, 4 * BLOCK) == b"\x11" * 2 * BLOCK + bytes(BLOCK) + b"\1" * BLOCK
    assert [(mark.offset, mark.source) for mark in image[0].plan.marks] == [(44, 2)]


def test_a_plain_disk_is_written_in_place() -> None:
    layer = opened(make_descriptor([{TOP: "a.raw"}], {TOP: ROOT}), {"a.raw": bytes(4 * BLOCK)})
    assert layer.plan.allocator is Allocator.NONE


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (make_image(), make_image(tracks=16, entries=2, data_offset=16, first=8192), "different sizes"),
        (make_image(), make_old(tracks=8), "different ways"),
    ],
)
def test_pieces_that_do_not_fit_together_are_only_read(first: bytes, second: bytes, reason: str) -> None:
    layer = opened(make_descriptor([{TOP: "a"}, {TOP: "b"}], {TOP: ROOT}), {"a": first, "b": second})
    assert layer.plan is None
    assert reason in layer.refusal


@pytest.mark.parametrize(
    ("recorded", "file"),
    [("/old/place/top.hds", "top.hds"), (r"C:\old\top.hds", "top.hds"), ("sub/top.hds", "sub/top.hds")],
)
def test_an_absolute_name_is_one_in_the_bundle(recorded: str, file: str) -> None:
    files = {file: FILES["top.hds"]}
    assert opened(make_descriptor([{TOP: recorded}], {TOP: ROOT}), files).sources == (file,)


def replaced(old: str, new: str, times: int = 1) -> bytes:
    assert old.encode() in SNAPSHOTS
    return SNAPSHOTS.replace(old.encode(), new.encode(), times)


ENTITY = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>\n<Parallels_disk_image Version="1.0">'
CORRUPT, UNSUPPORTED = ErrorKind.CORRUPT, ErrorKind.UNSUPPORTED
REFUSED = [
    (b"<Parallels_disk_image", "no XML", CORRUPT),
    (replaced('<Parallels_disk_image Version="1.0">', ENTITY), "document type", CORRUPT),
    (replaced('encoding="UTF-8"', 'encoding="odd"'), "no XML", CORRUPT),
    (b"<a>" * 40 + b"</a>" * 40, "nested", CORRUPT),
    (replaced("<Snapshots>", "<Snapshots>&undefined;"), "no XML", CORRUPT),
    (b"<other/>", "root", CORRUPT),
    (b"<Parallels_disk_image>" + b" " * (4 << 20) + b"</Parallels_disk_image>", "longer", CORRUPT),
    (replaced('"1.0">', '"2.0">'), "version", UNSUPPORTED),
    (replaced("</Disk_size>", "</Disk_size><Padding>1</Padding>"), "Padding", UNSUPPORTED),
    (
        replaced("</Disk_size>", "</Disk_size><LogicSectorSize>4096</LogicSectorSize>"),
        "LogicSector",
        UNSUPPORTED,
    ),
    (
        replaced("</Disk_size>", f"</Disk_size><Encryption><Engine>{guid(9)}</Engine></Encryption>"),
        "encrypted",
        UNSUPPORTED,
    ),
    (replaced(">32</Disk_size>", ">0</Disk_size>"), "Disk_size", CORRUPT),
    (replaced(">32</Disk_size>", ">-5</Disk_size>"), "no number", CORRUPT),
    (replaced(">32</Disk_size>", ">99999999999999999999</Disk_size>"), "no number", CORRUPT),
    (replaced(">32</Disk_size>", ">33</Disk_size>"), "end at sector", CORRUPT),
    (replaced(">0</Start>", ">1</Start>"), "is next", CORRUPT),
    (replaced(">32</End>", ">0</End>"), "is next", CORRUPT),
    (replaced("base.hds", "top.hds"), "two images", CORRUPT),
    (replaced("base.hds", ""), "is called", CORRUPT),
    (replaced("Compressed", "Odd"), "type", CORRUPT),
    (replaced(guid(1), "{1}"), "no GUID", CORRUPT),
    (replaced(f"<GUID>{guid(1)}", f"<GUID>{guid(2)}"), "two images", CORRUPT),
    (make_descriptor([{TOP: "top.hds"}], {TOP: guid(1)}), "is missing", CORRUPT),
    (make_descriptor([{guid(1): "top.hds"}], {TOP: ROOT}), "no image", CORRUPT),
    (make_descriptor([], {TOP: ROOT}), "storages", CORRUPT),
    (
        make_descriptor([{TOP: "top.hds", guid(1): "base.hds"}], {TOP: guid(1), guid(1): TOP}),
        "own ancestor",
        CORRUPT,
    ),
]


@pytest.mark.parametrize(("descriptor", "what", "kind"), REFUSED)
def test_a_bad_descriptor_is_refused(descriptor: bytes, what: str, kind: ErrorKind) -> None:
    with pytest.raises(StorageError, match=what) as caught:
        opened(descriptor)
    assert (caught.value.kind, caught.value.path, caught.value.offset) == (kind, DESCRIPTOR, 0)
    assert "; " in caught.value.message


def test_two_snapshots_of_one_name_are_refused() -> None:
    text = SNAPSHOTS.decode()
    shot = text[text.index("<Shot>") : text.index("</Shot>") + len("</Shot>")]
    with pytest.raises(StorageError, match="two snapshots"):
        opened(text.replace(shot, shot + shot).encode())


def test_an_unknown_snapshot_is_told_with_those_there_are() -> None:
    with pytest.raises(StorageError, match=guid(2)) as caught:
        opened(SNAPSHOTS, part=guid(5))
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("name", ["a.raw", "a.hds"])
def test_a_piece_that_is_too_small_is_refused(name: str) -> None:
    content = bytes(BLOCK) if name == "a.raw" else make_image(sectors=SECTORS)
    with pytest.raises(StorageError, match="holds 4096 bytes") as caught:
        opened(make_descriptor([{TOP: name}], {TOP: ROOT}), {name: content})
    assert (caught.value.kind, caught.value.path) == (CORRUPT, name)
