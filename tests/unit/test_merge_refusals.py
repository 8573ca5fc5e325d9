"""Merges that are refused or left, by the rows of the specification's error table, and a full disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivebay.chain import create_image
from drivebay.chain.merge import Direction, ImageName, Manner, merge
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Slot
from drivebay.registry.medium import MediumType
from drivebay.service.merging import consolidate
from support.machines import medium, named
from support.real_lab import RealLab

MIB = 1 << 20
SLOT = Slot("SATA", 0)
BACKWARD, FORWARD = Direction.BACKWARD, Direction.FORWARD
ROOM = 40 * MIB


@pytest.fixture
def lab(tmp_path: Path) -> RealLab:
    """Machine "vm": snapshot "one" and the current state on the disk "disk"."""
    return _lab(tmp_path)


def _lab(folder: Path, sectors: range = range(3)) -> RealLab:
    lab = RealLab(folder)
    vm = lab.machine("vm")
    lab.add(medium("disk"))
    lab.attach(vm, SLOT, named("disk"))
    for value in (1, 2):
        for sector in sectors:
            lab.write(vm, SLOT, sector, value)
        if value == 1:
            lab.take(vm, "one")
    return lab


@pytest.mark.parametrize("direction", list(Direction))
def test_e40_unrelated_images_are_not_merged(tmp_path: Path, direction: Direction) -> None:
    one, other = (str(tmp_path / name) for name in ("one.vdi", "other.vdi"))
    create_image(one, size=4 * MIB)
    create_image(other, size=4 * MIB)
    create_image(str(tmp_path / "child.vdi"), parent=other)
    before = {path: Path(path).read_bytes() for path in (one, other)}
    for child in (other, str(tmp_path / "child.vdi")):
        with pytest.raises(StorageError, match=r"no child of .*one\.vdi") as refused:
            merge([ImageName(child), ImageName(one)], direction)
        assert refused.value.kind is ErrorKind.STATE
    assert {path: Path(path).read_bytes() for path in before} == before


def test_e41_an_image_that_a_state_uses_is_not_merged(lab: RealLab) -> None:
    before, base = lab.shown(named("vm")), lab.media[named("disk")]
    lab.set_type(replace(base, merging=True))  # the snapshot still holds it
    assert consolidate(lab.home).merged == ()
    assert lab.shown(named("vm")) == before


def test_e41_an_image_with_several_children_waits_for_the_last(lab: RealLab) -> None:
    vm, snapshot = named("vm"), lab.machines[named("vm")].snapshots[0].uuid
    lab.restore(vm, snapshot)
    create_image(str(lab.folder / "more.vdi"), parent=lab.media[named("disk")].path, uuid=named("more"))
    more = replace(medium("more", "disk"), path=str(lab.folder / "more.vdi"))
    lab.set_type(more)
    lab.delete(vm, snapshot)
    before = lab.shown(vm)
    assert lab.media[named("disk")].merging
    assert consolidate(lab.home).merged == ()
    lab.set_type(replace(more, merging=True))  # nobody needs it any more
    assert len(consolidate(lab.home).merged) == 2
    assert (lab.shown(vm), len(lab.media)) == (before, 1)


@pytest.mark.parametrize("kind", [MediumType.IMMUTABLE, MediumType.MULTIATTACH])
def test_e42_an_immutable_or_multiattach_base_is_never_merged(lab: RealLab, kind: MediumType) -> None:
    vm = named("vm")
    lab.delete(vm, lab.machines[vm].snapshots[0].uuid)
    lab.set_type(replace(lab.media[named("disk")], type=kind))
    before, base = lab.shown(vm), Path(lab.media[named("disk")].path).read_bytes()
    assert consolidate(lab.home).merged == ()
    assert lab.shown(vm) == before
    assert Path(lab.media[named("disk")].path).read_bytes() == base


@pytest.mark.parametrize("manner", [Manner(), Manner(lock=False)], ids=["offline", "online"])
def test_e43_e44_a_disk_of_another_size_is_no_target(tmp_path: Path, manner: Manner) -> None:
    """No target is grown, whether a machine runs on it or not; the message tells both sizes."""
    base, child = (str(tmp_path / name) for name in ("base.vdi", "child.vdi"))
    create_image(base, size=4 * MIB)
    create_image(child, parent=base)
    data = bytearray(Path(base).read_bytes())
    data[0x170:0x178] = (3 * MIB).to_bytes(8, "little")  # the header's disk size
    Path(base).write_bytes(data)
    with pytest.raises(StorageError, match=f"{4 * MIB} bytes .* {3 * MIB};.*resize") as refused:
        merge([ImageName(child), ImageName(base)], BACKWARD, manner=manner)
    assert refused.value.kind is ErrorKind.STATE
    assert Path(base).read_bytes() == bytes(data)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A small file system for images."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "small", str(folder)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_e47_a_full_disk_keeps_no_snapshot_from_being_deleted(small: Path) -> None:
    """Two blocks of space are enough to merge many: VirtualBox asks for the sum of the images (5.7)."""
    lab = _lab(small, range(0, 160, 11))
    vm = named("vm")
    moved = sum(os.stat(one.path).st_size for one in lab.media.values()) // 2
    before = lab.shown(vm)[None]
    _fill(small / "filler", leave=2 * MIB)
    assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize < moved // 4
    lab.delete(vm, lab.machines[vm].snapshots[0].uuid)
    assert len(consolidate(lab.home).merged) == 1
    assert lab.shown(vm) == {None: before}
    assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize > moved // 2


def _fill(path: Path, *, leave: int) -> None:
    found = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave)
