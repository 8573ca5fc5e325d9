"""Merging neighbours: every kind of image, both ways; what is refused; space; interruptions."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import drivebay
from drivebay.chain import create_image
from drivebay.chain.merge import Direction, ImageName, Manner, merge
from drivebay.chain.relink import relink
from drivebay.errors import ErrorKind, StorageError
from support.variants import KIB, MIB, Kind, child_kinds, writable_kinds

BACKWARD, FORWARD = Direction.BACKWARD, Direction.FORWARD
_bytes = np.random.default_rng(7).bytes
_SOLID = Kind("vdi", None, 512 * KIB)
_CHILDREN = [kind for kind in child_kinds() if kind.block_size <= 8 * MIB]


class Family:
    """Images on each other, top first, each with changes of its own, and what the top shows."""

    def __init__(self, folder: Path, kinds: list[Kind], size: int) -> None:
        self.paths: list[Path] = []
        content = bytearray(size)
        draw = random.Random(5)
        for number, kind in enumerate(kinds):
            path = folder / f"{number}.{kind.spec(size).extension}"
            self._create(path, kind, size)
            with drivebay.open(path, writable=True) as disk:
                self._fill(disk, content, draw, kind.block_size)
            self.paths.insert(0, path)
        self.content = bytes(content)

    def _create(self, path: Path, kind: Kind, size: int) -> None:
        parent = self.paths[0] if self.paths else None
        create_image(
            path,
            size=None if parent else size,
            parent=parent,
            format_name=kind.format,
            options=kind.options_for(path.name),
        )

    def _fill(self, disk: drivebay.Disk, content: bytearray, draw: random.Random, block: int) -> None:
        for _ in range(10):
            length = draw.choice((1000, 70_000, block))
            offset = draw.randrange(max(disk.size - length, 1))
            length = min(length, disk.size - offset)
            what = draw.randrange(4)
            if what:
                content[offset : offset + length] = _bytes(length)
                disk.write(offset, content[offset : offset + length])
            else:
                content[offset : offset + length] = bytes(length)
                disk.zero(offset, length)

    @property
    def names(self) -> list[ImageName]:
        return [ImageName(str(path)) for path in self.paths]

    def shows(self, path: Path) -> bytes:
        with drivebay.open(path) as disk:
            content: bytes = disk.read(0, disk.size)
            return content


def _size(*kinds: Kind) -> int:
    block = max(kind.block_size for kind in kinds)
    return max(4 * block, 4 * MIB) - 8 * KIB


def _used(path: Path) -> int:
    with drivebay.open(path) as disk:
        lengths: list[int] = [each.length for each in disk.extents() if each.depth == 0]
        return sum(lengths)


@pytest.mark.parametrize("kind", _CHILDREN, ids=str)
def test_backward_into_a_base(tmp_path: Path, kind: Kind) -> None:
    base = next(each for each in writable_kinds() if each.format == kind.format)
    family = Family(tmp_path, [base, kind, _SOLID], _size(kind, base))
    top, child, parent = family.paths
    told: list[tuple[int, int]] = []
    merge(family.names[1:], BACKWARD, manner=Manner(lambda *each: told.append(each)))
    assert family.shows(top) == family.content  # nothing is stale
    assert _used(child) == 0
    relink(ImageName(str(top)), ImageName(str(parent)))
    child.unlink()
    assert family.shows(top) == family.content
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 0
    assert not [each for each in drivebay.check(parent) if each.severity is drivebay.Severity.ERROR]


@pytest.mark.parametrize("kind", _CHILDREN, ids=str)
def test_forward_into_the_child(tmp_path: Path, kind: Kind) -> None:
    family = Family(tmp_path, [_SOLID, kind, kind, _SOLID], _size(kind))
    top, child, parent, base = family.paths
    merge(family.names[1:], FORWARD)
    assert family.shows(top) == family.content
    assert _used(parent) == 0
    relink(ImageName(str(child)), ImageName(str(base)))
    parent.unlink()
    assert family.shows(top) == family.content
    assert not [each for each in drivebay.check(child) if each.severity is drivebay.Severity.ERROR]


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("upper", ["vdi", "vhd", "qcow2", "vmdk"])
@pytest.mark.parametrize("lower", ["vdi", "vhd", "vhdx", "qed"])
def test_across_formats_and_block_sizes(tmp_path: Path, upper: str, lower: str, direction: Direction) -> None:
    kinds = [_SOLID, Kind(lower), Kind(upper), _SOLID]
    family = Family(tmp_path, kinds, 9 * MIB)
    top, child, parent, base = family.paths
    merge(family.names[1:], direction)
    assert family.shows(top) == family.content
    if direction is BACKWARD:
        relink(ImageName(str(top)), ImageName(str(parent)))
        child.unlink()
    else:
        relink(ImageName(str(child)), ImageName(str(base)))
        parent.unlink()
    assert family.shows(top) == family.content


def test_into_a_raw_base(tmp_path: Path) -> None:
    family = Family(tmp_path, [Kind("raw"), _SOLID, _SOLID], 5 * MIB)
    merge(family.names[1:], BACKWARD)
    assert family.shows(family.paths[0]) == family.content
    relink(family.names[0], family.names[2])
    family.paths[1].unlink()
    assert family.shows(family.paths[0]) == family.content


def test_e43_disks_of_different_sizes(tmp_path: Path) -> None:
    family = Family(tmp_path, [_SOLID, _SOLID], 4 * MIB)
    data = bytearray(family.paths[1].read_bytes())
    data[0x170:0x178] = (4 * MIB - 512).to_bytes(8, "little")  # the header's disk size
    family.paths[1].write_bytes(data)
    before = [path.read_bytes() for path in family.paths]
    with pytest.raises(StorageError, match="one size") as caught:
        merge(family.names, BACKWARD)
    assert caught.value.kind is ErrorKind.STATE
    assert [path.read_bytes() for path in family.paths] == before


def test_what_is_no_parent_and_child(tmp_path: Path) -> None:
    family = Family(tmp_path, [_SOLID, _SOLID, _SOLID], 4 * MIB)
    top, middle, base = family.names
    for chain, direction in (([top, base], BACKWARD), ([base, top], BACKWARD), ([middle, base], FORWARD)):
        with pytest.raises(StorageError) as caught:
            merge(chain, direction)
        assert caught.value.kind is ErrorKind.STATE
    assert family.shows(family.paths[0]) == family.content


def test_a_parent_that_changed_behind_its_child_is_not_merged(tmp_path: Path) -> None:
    family = Family(tmp_path, [_SOLID, _SOLID], 4 * MIB)
    with drivebay.open(family.paths[1], writable=True) as disk:
        disk.write(0, b"behind its child")
    with pytest.raises(StorageError, match="changed behind it"):
        merge(family.names, BACKWARD)


def test_images_in_use_are_left_alone(tmp_path: Path) -> None:
    family = Family(tmp_path, [_SOLID, _SOLID, _SOLID], 4 * MIB)
    before = [path.read_bytes() for path in family.paths]
    with drivebay.open(family.paths[0]), pytest.raises(StorageError) as caught:
        merge(family.names[1:], BACKWARD)
    assert caught.value.kind is ErrorKind.IN_USE
    assert [path.read_bytes() for path in family.paths] == before


@pytest.mark.parametrize("direction", list(Direction))
def test_an_interrupted_merge_is_right_and_goes_on(tmp_path: Path, direction: Direction) -> None:
    family = Family(tmp_path, [_SOLID, _SOLID, _SOLID, _SOLID], 8 * MIB)
    interruptions = 0

    def stop(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    for _ in range(30):
        try:
            merge(family.names[1:], direction, manner=Manner(stop, batch=MIB))
        except KeyboardInterrupt:
            interruptions += 1
            assert family.shows(family.paths[0]) == family.content
        else:
            break
    assert interruptions > 2
    assert family.shows(family.paths[0]) == family.content
    assert _used(family.paths[1 if direction is BACKWARD else 2]) == 0


def test_where_space_is_scarce_it_takes_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(tmp_path, [_SOLID, _SOLID, _SOLID], 8 * MIB)
    real = os.statvfs(tmp_path)
    scarce = os.statvfs_result((*real[:4], 100, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: scarce)
    before = sum(path.stat().st_blocks * 512 for path in family.paths)
    most = before
    told: list[int] = []

    def watch(done: int, _total: int) -> None:
        nonlocal most
        most = max(most, sum(path.stat().st_blocks * 512 for path in family.paths))
        told.append(done)

    merge(family.names[1:], BACKWARD, manner=Manner(watch))
    assert all(after - done <= 512 * KIB for done, after in pairwise(told))
    assert most <= before + 512 * KIB + 64 * KIB
    assert family.shows(family.paths[0]) == family.content
