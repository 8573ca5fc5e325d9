"""``drivebay create`` with the options of any format, ``drivebay formats``, and images of several files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay as package
from drivebay.blockmap import FileChange, FileWrite
from drivebay.chain import open_layer, write_image
from drivebay.errors import StorageError
from support.command import drivebay, drivebay_json, failure
from support.toy_format import Colour, know_toys, make_toy, read_toy


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    know_toys(monkeypatch)
    monkeypatch.chdir(tmp_path)


def test_options_are_read_by_their_types(tmp_path: Path) -> None:
    options = ["-o", "colour=blue", "-o", "lazy=on", "--option", "room=2 MiB", "-o", "label=a=b, c"]
    assert drivebay("create", "a.toy", "--size=1M", *options).returncode == 0
    made = read_toy(tmp_path / "a.toy")
    assert (made["colour"], made["lazy"], made["room"], made["label"]) == ("blue", True, 2 << 20, "a=b, c")


def test_python_takes_options_as_values_or_text(tmp_path: Path) -> None:
    package.create(
        "a.toy", size="1M", options={"colour": Colour.BLUE, "lazy": True, "room": 0, "label": None}
    )
    made = read_toy(tmp_path / "a.toy")
    assert (made["colour"], made["lazy"], made["room"], made["label"]) == ("blue", True, 0, None)
    package.create("b.toy", size="1M", options={"room": "0", "block-size": "4k"}, variant="split")
    assert read_toy(tmp_path / "b.toy")["room"] == 0


@pytest.mark.parametrize(
    ("option", "part"),
    [
        (
            "color=red",
            "toy images have no option 'color'; they have: block_size, colour, label, lazy, room, variant",
        ),
        ("colour=pink", "the option colour can't be 'pink'; choose one of: red, blue"),
        ("lazy=maybe", "the option lazy can't be 'maybe'; say yes or no"),
        ("room=big", "'big' is no size"),
        ("lazy", "'lazy' is no option of a format; write it like NAME=VALUE"),
    ],
)
def test_wrong_options_are_told(tmp_path: Path, option: str, part: str) -> None:
    assert part in failure(drivebay("create", "a.toy", "--size=1M", "-o", option), 2)
    assert not list(tmp_path.iterdir())


def test_help_on_a_format_shows_its_options() -> None:
    for arguments in (["create", "--help", "toy"], ["create", "-h", "toy"], ["formats", "toy"]):
        done = drivebay(*arguments)
        assert done.returncode == 0
        for part in (
            "plain, split, bundle",
            "colour",
            "red, blue",
            "What it looks like.",
            "yes or no",
            "Unit of",
        ):
            assert part in done.stdout
    assert "--option" in drivebay("create", "--help").stdout
    assert "--option" in drivebay("create", "a.toy", "--help").stdout
    assert "there is no format 'nonsense'" in failure(drivebay("create", "--help", "nonsense"), 2)


def test_formats_are_listed() -> None:
    lines = drivebay("formats").stdout.splitlines()
    assert lines[0].split()[:5] == ["format", "create", "check", "repair", "edit"]
    assert next(line for line in lines if line.startswith("toy")).split()[1:5] == ["yes"] * 4
    assert next(line for line in lines if line.startswith("raw")).split()[1:5] == ["yes", "-", "-", "-"]
    listed = drivebay_json("formats")
    assert [one["name"] for one in listed] == [one.name for one in package.list_formats()]
    toy = drivebay_json("formats", "toy")
    assert toy == listed[0]
    colour = next(option for option in toy["options"] if option["name"] == "colour")
    assert colour == {
        "name": "colour",
        "kind": "choice",
        "default": "red",
        "choices": ["red", "blue"],
        "help": "What it looks like.",
    }


def test_an_image_of_several_files_comes_whole(tmp_path: Path) -> None:
    drivebay_json("create", "a.toy", "--size=1M", "--variant=split")
    assert sorted(os.listdir()) == ["a-0.part", "a-1.part", "a.toy"]
    opened = open_layer("a.toy")
    assert [source.size for source in opened.sources] == [4096 + (1 << 20), 4, 4]
    for source in opened.sources:
        source.close()
    facts = drivebay_json("info", "a.toy")
    assert facts["file_size"] == 4096 + (1 << 20) + 8
    assert facts["files"] == ["a.toy", str(tmp_path / "a-0.part"), str(tmp_path / "a-1.part")]


@pytest.mark.parametrize("taken", ["a-0.part", "a-1.part", "a.toy"])
def test_no_file_of_the_image_overwrites_another(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    assert f"{taken}: cannot create: File exists" in failure(
        drivebay("create", tmp_path / "a.toy", "--size=1M", "--variant=split"), 2
    ).replace("\n", "")
    assert os.listdir() == [taken]
    assert (tmp_path / taken).read_text() == "precious"


def test_a_failure_among_several_files_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, left = os.link, [2]

    def fail_at_last(source: str, target: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        link(source, target)

    monkeypatch.setattr(os, "link", fail_at_last)
    failure(drivebay("create", "a.toy", "--size=1M", "--variant=split"), 9)
    assert left[0] == -1
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_a_folder_that_opens() -> None:
    assert drivebay("create", "a.toy", "--size=1M", "--variant=bundle").returncode == 0
    assert sorted(os.listdir("a.toy")) == ["DiskDescriptor.xml", "data.part"]
    assert drivebay_json("info", "a.toy")["path"] == "a.toy/DiskDescriptor.xml"
    assert "File exists" in failure(drivebay("create", "a.toy", "--size=1M", "--variant=bundle"), 2)


@pytest.mark.parametrize("name", ["../b", "sub/b", "/b", "a.toy/..", "a.toy/"])
def test_files_of_an_image_stay_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()

    def changes() -> Iterator[FileChange]:
        yield FileWrite(0, b"data", file=name)

    with pytest.raises(StorageError, match="can't be called"):
        write_image(str(tmp_path / "sub" / "a.toy"), changes())
    assert os.listdir(tmp_path / "sub") == []


def test_info_shows_all_that_the_header_holds(tmp_path: Path) -> None:
    make_toy(
        tmp_path / "a.toy",
        parents=["one.toy", "two\x1b.toy"],
        parent_part="old",
        parent_format="raw",
        content=7,
        parent_content=8,
        in_part={"first [snapshot]": {"comment": "in it"}},
        extents=["data.bin"],
        details={"snapshots": 17, "what only a toy has": "rubber"},
    )
    (tmp_path / "data.bin").touch()
    shown = drivebay("info", "a.toy").stdout
    for part in ("one.toy", "two\ufffd.toy", "old", "raw", "0x00000007", "0x00000008", "data.bin", "rubber"):
        assert part in shown
    assert "17" not in shown.replace("2017", "")  # a detail hides nothing of what all formats have
    assert "0: first [snapshot] (1 MiB, made 2017-07-14 02:40:00 UTC)" in shown
    facts = drivebay_json("info", "a.toy")
    assert facts["parts"] == [{"id": "0", "name": "first [snapshot]", "size": 1 << 20, "created": 1.5e9}]
    assert facts["parent_names"][0] == "one.toy"
    assert drivebay_json("info", "a.toy", "--snapshot", "first [snapshot]")["comment"] == "in it"
    assert package.info("a.toy", part="first [snapshot]").facts.comment == "in it"
