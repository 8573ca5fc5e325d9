"""A rebuild finds what was moved, copied or lost, and gives no medium the file of another."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

import pytest

from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import Medium
from drivebay.service import media
from drivebay.service.images import create_image
from drivebay.service.locating import Stock, locate
from drivebay.service.machines.drives import attach
from drivebay.service.machines.hardware import add_controller
from drivebay.service.machines.lifecycle import create_machine
from drivebay.service.machines.request import AttachRequest, Place
from drivebay.service.rebuild import rebuild_registry
from drivebay.service.scan import scan_images
from drivebay.service.snapshots import take_snapshot

_NAMELESS = ["disk.qcow2", "disk.qed", "disk.img"]  # formats without a UUID of their own


def _machine(top: Path, name: str, disk: Path, *, snapshot: bool = True) -> Home:
    """A machine in ``top`` with a disk that lies elsewhere, and a diff on it."""
    home = find_home(top / "home")
    disk.parent.mkdir(parents=True, exist_ok=True)
    create_machine(home, name)
    add_controller(home, name, "SATA", "AHCI")
    with open_registry(home, durable=False) as registry:
        media.create_medium(registry, str(disk), size="8M")
    attach(home, name, AttachRequest(Place("SATA", 0), str(disk)))
    if snapshot:
        take_snapshot(home, name, "first")
    return home


def _rebuild(top: Path, *, lists: bool = False) -> tuple[list[str], tuple[str, ...]]:
    """The places of all media but the diffs in Snapshots, and the notes; all without any old registry."""
    home = find_home(top / "home")
    for path in Path(home.folder).iterdir():
        if path.is_file() and not (lists and path.name == "media.json"):
            path.unlink()
    notes = rebuild_registry(home, [str(top)]).notes
    with open_registry(home, durable=False) as registry, registry.view() as view:
        paths = sorted(one.path for one in view.tree.media.values())
    assert len(set(paths)) == len(paths)
    return [path for path in paths if "Snapshots" not in path], notes


@pytest.mark.parametrize("disk", _NAMELESS)
@pytest.mark.parametrize("snapshot", [True, False], ids=["with a diff", "without a diff"])
def test_a_lost_disk_is_not_replaced_by_another_machines(tmp_path: Path, disk: str, snapshot: bool) -> None:
    top = tmp_path / "top"
    lost, kept = top / "a" / disk, top / "b" / disk
    _machine(top, "a", lost)
    _machine(top, "b", kept, snapshot=snapshot)
    lost.unlink()
    paths, notes = _rebuild(top)
    assert paths == [str(lost), str(kept)]
    (note,) = notes
    assert f"is not at {lost}: all files like it are other media's" in note


@pytest.mark.parametrize("disk", _NAMELESS)
def test_a_file_that_two_lost_disks_could_be_is_neither(tmp_path: Path, disk: str) -> None:
    top = tmp_path / "top"
    lost = [top / name / disk for name in "ab"]
    for path in lost:
        _machine(top, path.parent.name, path)
    (top / "c").mkdir()
    lost[0].rename(top / "c" / disk)
    lost[1].unlink()
    paths, notes = _rebuild(top)
    assert paths[:2] == [str(path) for path in lost]
    assert sum(f"nothing tells whether this is its file: {top / 'c' / disk}" in note for note in notes) == 2


@pytest.mark.parametrize("disk", _NAMELESS)
def test_the_only_file_like_a_lost_one_is_taken_with_a_note(tmp_path: Path, disk: str) -> None:
    top = tmp_path / "top"
    _machine(top, "a", top / "a" / disk)
    (top / "c").mkdir()
    (top / "a" / disk).rename(top / "c" / disk)
    paths, (note,) = _rebuild(top)
    assert paths == [str(top / "c" / disk)]
    assert f"{paths[0]} is taken for it, the only file of its name, format and size" in note


@pytest.mark.parametrize("disk", ["disk.qcow2", "disk.qed"])
def test_the_base_of_an_unknown_diff_is_no_lost_disk(tmp_path: Path, disk: str) -> None:
    top = tmp_path / "top"
    lost, other = top / "a" / disk, top / "b" / disk
    _machine(top, "a", lost)
    other.parent.mkdir()
    create_image(other, size="8M")
    create_image(other.parent / f"child{other.suffix}", parent=other)
    lost.unlink()
    paths, notes = _rebuild(top)
    assert str(lost) in paths
    assert any(f"is not at {lost}: nothing tells whether" in note for note in notes)


@pytest.mark.parametrize("lists", [True, False], ids=["with media.json", "without media.json"])
@pytest.mark.parametrize("disk", [*_NAMELESS, "disk.vdi", "disk.vhdx"])
def test_a_copy_does_not_build_on_the_original(tmp_path: Path, disk: str, lists: bool) -> None:
    top, copy = tmp_path / "top", tmp_path / "copy"
    _machine(top, "box", top / "disks" / disk)
    shutil.copytree(top, copy)
    paths, (note,) = _rebuild(copy, lists=lists)
    assert paths == [str(copy / "disks" / disk)]
    assert f"is recorded at {top / 'disks' / disk}, which is still there, but {paths[0]} is taken" in note


def test_lists_of_media_alone_tell_of_a_copy(tmp_path: Path) -> None:
    top, copy = tmp_path / "top", tmp_path / "copy"
    top.mkdir()
    with open_registry(find_home(top / "home"), durable=False) as registry:
        media.create_medium(registry, str(top / "disk.qcow2"), size="8M")
    shutil.copytree(top, copy)
    paths, _ = _rebuild(copy, lists=True)
    assert paths == [str(copy / "disk.qcow2")]


@pytest.mark.parametrize("disk", ["disk.qcow2", "disk.qed"])
def test_diffs_that_moved_tell_which_of_like_bases_is_theirs(tmp_path: Path, disk: str) -> None:
    top, moved = tmp_path / "top", tmp_path / "moved"
    for name in "ab":
        _machine(top, name, top / f"disks-{name}" / disk)
    top.rename(moved)
    paths, notes = _rebuild(moved)
    assert paths == [str(moved / f"disks-{name}" / disk) for name in "ab"]
    assert notes == ()


def test_a_base_that_lies_elsewhere_stays_there(tmp_path: Path) -> None:
    """The folders hold a file like it, and a machine of the same name lies beside it: another one."""
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    base = elsewhere / "disk.img"
    _machine(elsewhere, "box", elsewhere / "own.vdi", snapshot=False)
    _machine(top, "box", base)
    shutil.copy(base, top / "disk.img")
    paths, notes = _rebuild(top)
    assert (str(base) in paths, notes) == (True, ())


def test_a_lost_base_is_not_its_own_diff(tmp_path: Path) -> None:
    """All images of a VHDX chain hold the same disk id."""
    top = tmp_path / "top"
    base = top / "disks" / "disk.vhdx"
    _machine(top, "box", base)
    base.unlink()
    paths, notes = _rebuild(top)
    assert paths == [str(base)]
    assert any(f"is not at {base}: no file has it" in note for note in notes)


def test_two_media_that_are_recorded_at_one_place_are_told_of(tmp_path: Path) -> None:
    path = str(tmp_path / "disk.qcow2")
    create_image(path, size="8M")
    both = {uuid: Medium(uuid, path, "qcow2", size=8 << 20) for uuid in (uuid4(), uuid4())}
    stock = Stock((str(tmp_path),), (path,), tuple(scan_images([str(tmp_path)])))
    found, notes = locate(both, [], stock)
    assert found == both
    assert len(notes) == 2
    assert all("is recorded for another medium, too" in note for note in notes)
