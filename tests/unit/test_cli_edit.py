"""``drivebay repair`` and ``drivebay set``: what they change, and what they refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest

import drivebay as package
from drivebay.chain import edit as chain_edit
from drivebay.chain import open_chain
from drivebay.engine.source import FileSource
from support.command import drivebay, drivebay_json, failure
from support.toy_format import know_toys, make_toy, read_toy


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    know_toys(monkeypatch)
    monkeypatch.chdir(tmp_path)


def test_a_repair_is_a_plan_until_it_is_applied(tmp_path: Path) -> None:
    disk = make_toy(tmp_path / "disk.toy", steps=["one", "two"])
    before = disk.read_bytes()
    done = drivebay("repair", "disk.toy")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "mend one",
        "mend two",
        "nothing was changed; to do this, say --apply",
    ]
    assert disk.read_bytes() == before
    assert drivebay("repair", "disk.toy", "--apply").stdout.splitlines() == [
        "mend one",
        "mend two",
        "repaired",
    ]
    assert read_toy(disk)["steps"] == []
    for arguments in (["--apply"], []):
        done = drivebay("repair", "disk.toy", *arguments)
        assert (done.returncode, done.stdout) == (0, "nothing to repair\n")


def test_a_repair_as_json(tmp_path: Path) -> None:
    make_toy(tmp_path / "disk.toy", steps=["lossy one"])
    done = drivebay("repair", "disk.toy", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "path": "disk.toy",
        "applied": False,
        "loses": True,
        "steps": [{"message": "mend lossy one", "loses": True}],
    }
    assert drivebay_json("repair", "disk.toy", "--apply", "--allow-loss")["applied"] is True


def test_a_step_that_loses_data_needs_permission(tmp_path: Path) -> None:
    disk = make_toy(tmp_path / "disk.toy", steps=["one", "lossy two"])
    before = disk.read_bytes()
    assert "say --apply --allow-loss" in drivebay("repair", "disk.toy").stdout
    message = failure(drivebay("repair", "disk.toy", "--apply"), 11)
    assert "nothing was done, because this would lose data: mend lossy two" in message
    assert disk.read_bytes() == before
    assert drivebay("repair", "disk.toy", "--apply", "--allow-loss").returncode == 0
    assert read_toy(disk)["steps"] == []


def test_an_interrupted_repair_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = make_toy(tmp_path / "disk.toy", steps=["one", "two", "three"])
    left = [2]
    really = chain_edit.apply_step

    def interrupt(*arguments: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        really(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("drivebay.service.edit.apply_step", interrupt)
    assert drivebay("repair", "disk.toy", "--apply").returncode == 130
    assert read_toy(disk)["steps"] == ["three"]
    left[0] = 9
    assert drivebay("repair", "disk.toy", "--apply").stdout.splitlines() == ["mend three", "repaired"]


def test_each_change_is_durable_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_toy(tmp_path / "disk.toy", extents=["one.bin"])
    (tmp_path / "one.bin").touch()
    log = []
    write, sync = FileSource.write, FileSource.sync

    def note_write(source: FileSource, data: bytes, offset: int) -> None:
        log.append(f"write {os.path.basename(source.path)}")
        write(source, data, offset)

    def note_sync(source: FileSource) -> None:
        log.append(f"sync {os.path.basename(source.path)}")
        sync(source)

    monkeypatch.setattr(FileSource, "write", note_write)
    monkeypatch.setattr(FileSource, "sync", note_sync)
    assert drivebay("set", "disk.toy", "comment", "text").returncode == 0
    assert log == ["write one.bin", "sync one.bin", "write disk.toy", "sync disk.toy"]
    assert (tmp_path / "one.bin").read_text() == "text"


@pytest.mark.parametrize("command", [["repair", "disk.toy", "--apply"], ["set", "disk.toy", "comment", "x"]])
def test_an_image_in_use_is_left_alone(tmp_path: Path, command: list[str]) -> None:
    disk = make_toy(tmp_path / "disk.toy", steps=["one"])
    before = disk.read_bytes()
    with open_chain(disk):
        assert "in use" in failure(drivebay(*command), 7)
    assert disk.read_bytes() == before


def test_a_format_that_cannot_be_repaired_or_edited_says_so(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(512))
    assert "the format raw can't be repaired" in failure(drivebay("repair", "disk.img"), 6)
    assert "has no header that could be edited" in failure(drivebay("set", "disk.img", "uuid", "random"), 6)


def test_set_changes_fields(tmp_path: Path) -> None:
    disk = make_toy(tmp_path / "disk.toy")
    uuid = str(uuid4())
    facts = drivebay_json("set", "disk.toy", "uuid", uuid, "comment", "hello")
    assert (facts["uuid"], facts["comment"]) == (uuid, "hello")
    assert "changed disk.toy" in drivebay("set", "disk.toy", "uuid", "random").stdout
    assert read_toy(disk)["uuid"] not in (uuid, None)


@pytest.mark.parametrize(
    ("fields", "code", "part"),
    [
        (["colour", "red"], 2, "there is no field 'colour'; name one of: uuid, modification, parent, "),
        (["comment"], 2, "the field 'comment' has no value"),
        (["uuid", "x"], 2, "'x' is no UUID"),
        (["geometry", "1,2"], 2, "'1,2' is no geometry; write it like 1024,16,63"),
        (["geometry", "1,2,3"], 6, "a toy has no geometry"),
        (["parent", "disk.toy"], 11, "this image has no parent"),
        ([], 2, "Missing argument"),
    ],
)
def test_set_refuses_nonsense(tmp_path: Path, fields: list[str], code: int, part: str) -> None:
    disk = make_toy(tmp_path / "disk.toy")
    before = disk.read_bytes()
    assert part in failure(drivebay("set", "disk.toy", *fields), code)
    assert disk.read_bytes() == before


@pytest.mark.parametrize("name", ["disk.vdi", "disk.vmdk", "disk.vhd"])
def test_a_geometry_that_nobody_would_believe_is_refused(tmp_path: Path, name: str) -> None:
    package.create(tmp_path / name, size=3 << 20)
    assert drivebay_json("set", name, "geometry", "4,16,63")["pchs"]["cylinders"] == 4
    before = (tmp_path / name).read_bytes()
    assert "larger than the disk" in failure(drivebay("set", name, "geometry", "7,16,63"), 2)
    assert (tmp_path / name).read_bytes() == before


def test_set_parent_records_the_name_as_the_image_needs_it(tmp_path: Path) -> None:
    make_toy(tmp_path / "new.toy")
    child = make_toy(tmp_path / "sub" / "child.toy", parents=["old.toy"])
    assert drivebay("set", "sub/child.toy", "parent", "new.toy").returncode == 0
    assert read_toy(child)["parents"] == ["../new.toy"]
    failure(drivebay("set", "sub/child.toy", "parent", "missing.toy"), 4)


def test_the_python_functions_do_the_same(tmp_path: Path) -> None:
    disk = make_toy(tmp_path / "disk.toy", steps=["one"])
    assert package.edit(disk, comment="hello", uuid="none").facts.comment == "hello"
    found = package.repair(disk)
    assert ([step.message for step in found.steps], found.applied) == (["mend one"], False)
    assert package.repair(disk, apply=True).applied
    assert not package.repair(disk).steps


def test_no_image_becomes_its_own_parent(tmp_path: Path) -> None:
    package.create(tmp_path / "base.vdi", size=1 << 20)
    package.create(tmp_path / "child.vdi", parent=tmp_path / "base.vdi")
    own = drivebay_json("info", "child.vdi")["uuid"]
    assert "own parent" in failure(drivebay("set", "child.vdi", "parent-uuid", own), 2)
    assert drivebay_json("info", "child.vdi")["parent_uuid"] != own


def test_a_ring_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.vdi").symlink_to("b.vdi")
    (tmp_path / "b.vdi").symlink_to("a.vdi")
    assert "ring of symbolic links" in failure(drivebay("info", "a.vdi"), 2)
