"""The registry is only an index: it is made anew from folders, and held against them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from drivebay.cli.run import run
from drivebay.errors import StorageError
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import MediumType
from drivebay.service import media
from drivebay.service.doctor import examine, fix
from drivebay.service.images import create_image
from drivebay.service.machines import lifecycle
from drivebay.service.machines.drives import attach
from drivebay.service.machines.hardware import add_controller
from drivebay.service.machines.lifecycle import create_machine
from drivebay.service.machines.request import AttachRequest, Place
from drivebay.service.rebuild import rebuild_registry
from drivebay.service.snapshots import restore_snapshot, take_snapshot


def _build(top: Path) -> Home:
    """A machine with branches of snapshots on two trees, an immutable disk, and media of nobody."""
    home = find_home(top / "home")
    folder = top / "home" / "machines" / "box"
    create_machine(home, "box")
    add_controller(home, "box", "SATA", "AHCI")
    with open_registry(home, durable=False) as registry:
        media.create_medium(registry, str(folder / "system.vdi"), size="8M")
        media.create_medium(registry, str(folder / "raw.img"), size="8M")
        media.create_medium(registry, str(folder / "fresh.vdi"), size="8M", type=MediumType.IMMUTABLE)
        free = top / "free"
        free.mkdir()
        media.create_medium(registry, str(free / "base.qcow2"), size="8M", type=MediumType.MULTIATTACH)
        media.create_medium(registry, str(free / "child.qcow2"), parent=str(free / "base.qcow2"))
    for number, name in enumerate(("system.vdi", "raw.img", "fresh.vdi")):
        attach(home, "box", AttachRequest(Place("SATA", number), str(folder / name)))
    take_snapshot(home, "box", "first")
    take_snapshot(home, "box", "second")
    restore_snapshot(home, "box", "first")
    take_snapshot(home, "box", "branch")
    return home


def _tree(capsys: pytest.CaptureFixture[str], home: Home, top: Path) -> Any:
    """What ``medium tree --json`` says, with paths from ``top`` on; a copy has no holes in its files."""
    assert run(["--home", home.folder, "medium", "tree", "--json"]) == 0
    text = capsys.readouterr().out.replace(str(top), "TOP")
    return json.loads(re.sub(r'"disk_usage": \d+', '"disk_usage": 0', text))


def _settled(trees: Any) -> Any:
    return sorted((json.dumps(tree, sort_keys=True) for tree in trees), key=str)


@pytest.mark.parametrize("original", ["gone", "kept"])
def test_p18_rebuilt_from_a_copy_of_the_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], original: str
) -> None:
    top, copy = tmp_path / "top", tmp_path / "copy"
    top.mkdir()
    home = _build(top)
    before = _tree(capsys, home, top)
    assert sum(len(tree["children"]) for tree in before) >= 3
    shutil.copytree(top, copy)
    if original == "gone":
        shutil.rmtree(top)
    copied = find_home(copy / "home")
    os.unlink(copied.registry)
    with pytest.raises(StorageError, match="rebuild"):
        open_registry(copied)
    report = rebuild_registry(copied, [str(copy)])
    assert (report.machines, report.old) == (1, "")
    assert len(report.notes) == (2 if original == "kept" else 0)  # of base.qcow2 and child.qcow2
    assert all("which is still there" in note for note in report.notes)
    assert _settled(_tree(capsys, copied, copy)) == _settled(before)
    with open_registry(copied, durable=False) as registry:
        assert not [one for one in examine(registry) if one.code != "trash-size"]


def test_rebuilding_keeps_the_old_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = _build(tmp_path)
    before = _tree(capsys, home, tmp_path)
    Path(home.registry).write_text("damaged" * 1000)
    report = rebuild_registry(home, [str(tmp_path / "free")])
    assert Path(report.old).read_text() == "damaged" * 1000
    assert _settled(_tree(capsys, home, tmp_path)) == _settled(before)


def test_rebuilt_from_images_alone(tmp_path: Path) -> None:
    create_image(tmp_path / "base.img", size="8M")
    create_image(tmp_path / "one.vdi", parent=tmp_path / "base.img")
    create_image(tmp_path / "two.vmdk", parent=tmp_path / "one.vdi")
    create_image(tmp_path / "split.vmdk", size="8M", variant="twoGbMaxExtentSparse")
    home = find_home(tmp_path / "home")
    assert rebuild_registry(home, [str(tmp_path)]).media == 4
    with open_registry(home, durable=False) as registry, registry.view() as view:
        top = media.find_medium(view.tree, "two.vmdk")
        chain = [os.path.basename(one.path) for one in view.tree.chain(top.uuid)]
    assert chain == ["two.vmdk", "one.vdi", "base.img"]


def test_a_damaged_machine_file_is_told_and_left_out(tmp_path: Path) -> None:
    home = _build(tmp_path)
    Path(home.machines, "box", "box.drivebay").write_text("{")
    report = rebuild_registry(home, [str(tmp_path)])
    assert report.machines == 0
    assert any("no JSON" in note for note in report.notes)


def test_e66_a_copied_machine_file_is_no_second_machine(tmp_path: Path) -> None:
    home = _build(tmp_path)
    before = lifecycle.list_machines(home)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(Path(home.machines, "box", "box.drivebay"), copy)
    report = rebuild_registry(home, [str(tmp_path)])
    assert report.machines == 1
    (note,) = report.notes
    assert "is the same machine as in" in note
    assert str(copy) in note
    assert [one.uuid for one in lifecycle.list_machines(home)] == [one.uuid for one in before]


def test_doctor_finds_each_disagreement(tmp_path: Path) -> None:
    home = _build(tmp_path)
    folder = Path(home.machines, "box")
    (tmp_path / "free" / "child.qcow2").rename(tmp_path / "free" / "renamed.qcow2")
    os.rename(folder / "system.vdi", folder / "moved.vdi")
    shutil.copy(folder / "fresh.vdi", folder / "copy.vdi")
    (folder / "Snapshots" / "nobody.bin").write_bytes(bytes(100))
    staging = folder / ".new.vdi.0123abcd.new"
    staging.mkdir()
    os.utime(staging, (time.time() - 7200,) * 2)
    (folder / "box.drivebay").write_text("{}")
    Path(home.media_file).unlink()
    with open_registry(home, durable=False) as registry:
        found = {(one.code, os.path.basename(one.path)) for one in examine(registry)}
        assert found == {
            ("missing", "child.qcow2"),
            ("moved", "system.vdi"),
            ("duplicate", "copy.vdi"),
            ("leftover", "nobody.bin"),
            ("unfinished", staging.name),
            ("machine-file", "box.drivebay"),
            ("media-file", "media.json"),
        }
        assert len(fix(registry, examine(registry))) == 3
        left = {one.code for one in examine(registry)}
        assert left == {"missing", "moved", "duplicate", "leftover"}
        for one in examine(registry):
            if one.code == "moved":
                assert run(["--home", home.folder, *one.remedy.split()[1:]]) == 0
        assert "moved" not in {one.code for one in examine(registry)}
    assert not staging.exists()


def test_doctor_tells_of_changed_files_and_lost_parents(tmp_path: Path) -> None:
    home = find_home(tmp_path / "home")
    with open_registry(home, durable=False) as registry:
        base = media.create_medium(registry, str(tmp_path / "base.vdi"), size="8M")
        child = media.create_medium(registry, str(tmp_path / "child.vdi"), parent=base.path)
        other = media.create_medium(registry, str(tmp_path / "other.vdi"), size="8M")
        os.unlink(other.path)
        create_image(other.path, size="8M")
        with registry.change() as change:
            change.remove_medium(base.uuid)
            change.put_medium(dataclasses.replace(child, auto_reset=True))
        found = {one.code: os.path.basename(one.path) for one in examine(registry)}
        assert found == {"parent-missing": "child.vdi", "changed": "other.vdi"}


def test_doctors_exit_code_is_its_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(tmp_path / "home")
    image = tmp_path / "disk.vdi"
    assert run(["--home", home, "medium", "create", str(image), "--size", "8M"]) == 0
    assert run(["--home", home, "doctor"]) == 0
    image.unlink()
    capsys.readouterr()
    assert run(["--home", home, "doctor", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["code"] == "missing"


def test_a_damaged_record_of_a_machine_is_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = _build(tmp_path)
    with contextlib.closing(sqlite3.connect(home.registry)) as connection, connection:
        connection.execute("UPDATE machines SET document = '{\"drivebay\": 1, '")
    assert run(["--home", home.folder, "machine", "list"]) == 5
    error = capsys.readouterr().err
    assert "damaged (this is no machine file: it is no JSON)" in error
    assert "drivebay rebuild FOLDER" in error
    rebuild_registry(home, [str(tmp_path)])
    assert run(["--home", home.folder, "snapshot", "list", "box"]) == 0
    assert "branch" in capsys.readouterr().out
