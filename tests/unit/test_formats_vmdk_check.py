"""Damage that a check finds, and what a repair makes of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import drivebay
from drivebay.errors import StorageError
from drivebay.formats.vmdk import FORMAT
from drivebay.formats.vmdk.scan import Tables
from drivebay.model import Severity
from support.interpreter import read_layers
from support.vmdk_images import (
    GRAIN,
    Made,
    codes,
    gate,
    loses,
    made,
    opened,
    put,
    repaired,
    tables_of,
    with_grains,
)


def damaged(*changes: Callable[[bytearray], None]) -> Made:
    files = with_grains(made(), 0, 1, 2)
    for change in changes:
        change(files[""])
    return files


def entry(block: int, value: int, copy: int | None = None) -> Callable[[bytearray], None]:
    """Entry ``block`` becomes ``value`` in the first grain table, ``copy`` in its copy."""

    def change(data: bytearray) -> None:
        main, mirror = tables_of(data)
        put(data, main + 4 * block, value)
        if copy is not None:
            put(data, mirror + 4 * block, copy)

    return change


def directory(place: int, value: int) -> Callable[[bytearray], None]:
    """The first entry of the directory that the header names at ``place`` becomes ``value``."""

    def change(data: bytearray) -> None:
        (sector,) = struct.unpack_from("<Q", data, place)
        put(data, sector * 512, value)

    return change


def number(offset: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: put(data, offset, value)


def content(files: Made | dict[str, bytes]) -> bytes:
    return read_layers([(opened(files), files[""])], 0, 3 * GRAIN)


MAIN, COPY = 56, 48
SOUND = b"".join(bytes([number]) * GRAIN for number in (1, 2, 3))
FAR = 1 << 30


def test_a_sound_image() -> None:
    files = damaged()
    assert codes(files) == []
    assert loses(files) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (entry(1, FAR), "copies-differ"),
        (entry(1, FAR, FAR), "outside"),
        (entry(1, 128, 128), "doubled"),
        (entry(1, 192, 192), "overlapping"),
        (entry(1, 1, 1), "outside"),
        (entry(1, 26, 26), "outside"),
        (entry(1, 2, 2), "outside"),
        (directory(COPY, 1), "copy-lost"),
        (directory(MAIN, FAR), "table-lost"),
        (directory(COPY, FAR), "copy-lost"),
        (number(72, 0x200A0A01), "unclean"),
        (number(48, 0), "no-redundant-directory"),
        (number(12, 10368), "capacity"),
        (number(8, 0x10003), "flags"),
    ],
)
def test_damage_is_found(change: Callable[[bytearray], None], code: str) -> None:
    files = with_grains(made(), 0, 1, 2)
    if code == "unclean":
        files[""][72] = 1
    else:
        change(files[""])
    assert code in codes(files)


@pytest.mark.parametrize(
    "change",
    [
        entry(1, FAR),
        entry(1, 1),
        entry(1, 256, FAR),
        directory(MAIN, FAR),
        directory(COPY, FAR),
        directory(COPY, 1),
        directory(MAIN, 0),
        directory(COPY, 0),
        number(48, 0),
    ],
)
def test_what_one_copy_still_has_is_made_whole_again(change: Callable[[bytearray], None]) -> None:
    files = damaged(change)
    assert codes(files) != []
    assert not any(loses(files))
    after = repaired(files)
    assert codes(after) == []
    assert content(after) == SOUND


@pytest.mark.parametrize("place", [MAIN, COPY])
def test_a_directory_that_points_into_a_grain_is_wrong_and_the_grain_is_right(place: int) -> None:
    files = damaged()
    main, _ = tables_of(files[""])
    grain = int.from_bytes(files[""][main + 4 : main + 8], "little")
    directory(place, grain + 3)(files[""])
    assert codes(files) == ["table-lost" if place == MAIN else "copy-lost"]
    assert not any(loses(files))
    after = repaired(files)
    assert codes(after) == []
    assert content(after) == SOUND


@pytest.mark.parametrize("alone", [True, False])
def test_a_table_on_something_else_goes_silently_only_if_its_copy_has_all_of_it(alone: bool) -> None:
    """The main table lies in the descriptor's room; its copy lacks a grain, or doesn't."""
    files = damaged()
    main, copy = tables_of(files[""])
    files[""][12 * 512 : 16 * 512] = files[""][main : main + 2048]
    directory(MAIN, 12)(files[""])
    assert not any(loses(files))
    if alone:
        put(files[""], copy + 4, 0)
    assert loses(files) == [alone]


def test_where_copies_differ_what_was_read_stays() -> None:
    files = damaged(entry(1, 0))
    before = content(files)
    after = repaired(files)
    assert codes(after) == []
    assert content(after) == before != SOUND


@pytest.mark.parametrize("value", [FAR, 1, 128])
def test_what_neither_copy_has_is_freed_and_said(value: int) -> None:
    files = damaged(entry(1, value, value))
    assert loses(files) == [True]
    after = repaired(files)
    assert codes(after) == []
    assert content(after) == SOUND[:GRAIN] + bytes(GRAIN) + SOUND[2 * GRAIN :]


def test_a_table_that_neither_directory_has() -> None:
    files = damaged(directory(MAIN, FAR), directory(COPY, FAR))
    assert loses(files) == [True, True]
    after = repaired(files)
    assert codes(after) == []
    assert content(after) == bytes(3 * GRAIN)


def test_an_extent_that_was_not_closed() -> None:
    files = damaged()
    files[""][72] = 1
    assert codes(files) == ["unclean"]
    assert loses(files) == [False]
    assert repaired(files)[""][72] == 0


def test_the_extents_of_a_split_image_are_told_apart() -> None:
    files = made("twoGbMaxExtentSparse")
    extent = files["disk-s001.vmdk"]
    main, _ = tables_of(extent)
    put(extent, main, FAR)
    assert FORMAT.check is not None
    (outside, differ) = FORMAT.check(gate(files), opened(files))
    assert (outside.severity, differ.severity) == (Severity.ERROR, Severity.WARNING)
    assert outside.message.startswith("disk-s001.vmdk: ")
    after = repaired(files)
    assert after[""] == files[""]
    assert codes(after) == []


def test_the_tables_of_a_cow_extent() -> None:
    files = made("vmfsSparse")
    extent = files["disk-delta.vmdk"]
    put(extent, 2048, FAR)
    extent[1648] = 1
    assert codes(files) == ["unclean", "table-lost"]
    assert loses(files) == [True, False]
    assert codes(repaired(files)) == []


def test_a_cow_extent_that_calls_used_sectors_free() -> None:
    files = made("vmfsSparse")
    extent = files["disk-delta.vmdk"]
    put(extent, 2048, len(extent) // 512)
    extent += bytes(16384)
    assert codes(files) == ["counter-low"]
    assert loses(files) == [False]
    after = repaired(files)
    assert codes(after) == []
    assert struct.unpack_from("<I", after["disk-delta.vmdk"], 28) == (len(extent) // 512,)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"# Disk DescriptorFile", b"# Tape DescriptorFile", "signature"),
        (b'createType="monolithicSparse"', b'createType="monolithicSparsE"', "create-type"),
        (b"CID=", b"DIC=", "content-id"),
        (b"parentCID=ffffffff", b"parentCID=fffffff0", "no-parent"),
    ],
)
def test_what_a_descriptor_lacks(old: bytes, new: bytes, code: str) -> None:
    files = made()
    files[""] = bytearray(bytes(files[""]).replace(old, new, 1))
    assert code in codes(files)


def test_a_file_that_became_shorter_meanwhile() -> None:
    files = damaged()
    layer = opened(files)
    shorter = gate({"": bytes(files[""])})
    shorter.data = shorter.data[: 26 * 512]
    assert FORMAT.check is not None
    with pytest.raises(StorageError, match="became shorter"):
        list(FORMAT.check(shorter, layer))


def test_empty_tables_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all of a large thin disk's are: judging each took ten seconds a TiB."""
    judged = []
    bad = Tables.bad
    monkeypatch.setattr(Tables, "bad", lambda self, leaf, raw: judged.append(leaf) or bad(self, leaf, raw))
    drivebay.create(tmp_path / "a.vmdk", size=1 << 34)
    with drivebay.open(tmp_path / "a.vmdk", writable=True) as disk:
        disk.write(0, b"x")
        disk.write(1 << 33, b"x")
    assert drivebay.check(tmp_path / "a.vmdk") == []
    assert len(judged) == 2
