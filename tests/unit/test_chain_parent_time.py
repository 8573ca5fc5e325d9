"""When the parent's file was last changed: recorded by a VHD's child, and noted where it differs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import drivebay
from drivebay.formats.vhd.footer import file_time, seconds_of
from drivebay.model import Severity
from support.command import drivebay as command
from support.command import drivebay_json

SIZE = 1 << 20
_2000 = 946_684_800


@pytest.fixture
def child(tmp_path: Path) -> Path:
    drivebay.create(tmp_path / "base.vhd", size=SIZE)
    os.utime(tmp_path / "base.vhd", (1_500_000_000, 1_500_000_000))
    drivebay.create(tmp_path / "child.vhd", parent=tmp_path / "base.vhd")
    return tmp_path / "child.vhd"


def _notes(path: Path) -> list[str]:
    found = drivebay.check(path)
    assert all(finding.severity is Severity.NOTE for finding in found)
    return [finding.message for finding in found if finding.code == "parent-modified"]


def test_a_child_records_it(child: Path) -> None:
    data = child.read_bytes()
    assert int.from_bytes(data[512 + 56 : 512 + 60], "big") == 1_500_000_000 - _2000
    facts = drivebay.info(child).facts
    assert facts.parent_modified == 1_500_000_000
    assert facts.details["parent modified"] == "2017-07-14 02:40:00 UTC"
    assert _notes(child) == []
    assert drivebay.info(child).notes == ()


def test_a_difference_is_noted_and_refuses_nothing(child: Path) -> None:
    with drivebay.open(child.with_name("base.vhd"), writable=True) as disk:
        disk.write(0, b"other")
    (note,) = _notes(child)
    assert "base.vhd was last changed at 2017-07-14 02:40:00 UTC when this child was made, and at 20" in note
    assert drivebay.info(child).notes == (note,)
    with drivebay.open(child) as disk:
        assert disk.read(0, 5) == b"other"
    shown = " ".join(command("info", str(child)).stdout.split())
    assert "the two may not fit any more" in shown
    assert drivebay_json("info", str(child), "--chain")["chain"][0]["notes"] == [note]


def test_two_seconds_are_no_difference(child: Path) -> None:
    os.utime(child.with_name("base.vhd"), (1_500_000_002, 1_500_000_002))
    assert _notes(child) == []
    os.utime(child.with_name("base.vhd"), (1_500_000_003, 1_500_000_003))
    assert len(_notes(child)) == 1


def test_a_parent_that_is_not_there_is_no_note(child: Path) -> None:
    child.with_name("base.vhd").unlink()
    assert _notes(child) == []


def test_another_parent_has_another_time(child: Path) -> None:
    drivebay.create(child.with_name("other.vhd"), size=SIZE)
    drivebay.edit(child, parent=str(child.with_name("other.vhd")))
    assert drivebay.info(child).facts.parent_modified is None
    assert _notes(child) == []


@pytest.mark.parametrize(
    ("modified", "stamp"),
    [
        (None, 0),
        (0, 0),
        (_2000, 0),
        (_2000 + 1, 1),
        (_2000 + (1 << 32) - 1, (1 << 32) - 1),
        (_2000 + (1 << 32), 0),
    ],
)
def test_what_the_format_can_say(modified: int | None, stamp: int) -> None:
    assert file_time(modified) == stamp
    assert seconds_of(stamp) == (modified if stamp else None)
