"""Dropping blocks, so that the parents' bytes show: over every kind of image that can have a parent."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest

import drivebay
from drivebay.blockmap import Table
from drivebay.chain import create_image
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import ExtentState, Finding, Severity
from support.chains import Case, build_chain, kind_case
from support.disks import findings, open_disk
from support.faulty import Fault, Operation
from support.shadow import ShadowDisk, assert_same, check_extents
from support.variants import child_kinds

PLACES = ("child", "on-vdi")
KINDS = [kind_case(kind, place) for kind in child_kinds() for place in PLACES]
HOST_BLOCK = 4096


class Chain:
    """A chain whose top is filled, and what it shows with and without that."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.paths, self.content = build_chain(folder, case.specs, seed=5, fill_top=True)
        with open_disk(self.paths[1:], writable=False) as disk:
            self.below = disk.read(0, disk.size).ljust(len(self.content), b"\0")[: len(self.content)]

    def drop(self, disk: Disk, offset: int, length: int) -> None:
        disk.drop(offset, length)
        for begin, size in whole_blocks(disk, offset, offset + length):
            self.content[begin : begin + size] = self.below[begin : begin + size]


def whole_blocks(disk: Disk, low: int, high: int) -> list[tuple[int, int]]:
    tables = [segment for segment in disk.layers[0].layer.segments if isinstance(segment, Table)]
    spans = [table.span(block) for table in tables for block in range(table.count)]
    return [(begin, size) for begin, size in spans if low <= begin and begin + size <= high]


def ranges_in_file(disk: Disk, low: int, high: int) -> list[tuple[str, int, int]]:
    """Where the blocks that lie wholly in a range have their bytes: file, beginning, end."""
    ranges = []
    for begin, size in whole_blocks(disk, low, high):
        for extent in disk.extents(begin, size):
            if extent.depth == 0 and extent.state is ExtentState.DATA:
                assert extent.source is not None
                assert extent.offset is not None
                ranges.append((extent.source, extent.offset, extent.offset + extent.length))
    return ranges


def allocated(path: str, begin: int, end: int) -> bool:
    """Whether the host has space for any of its own blocks that lie wholly in the range."""
    begin, end = begin + -begin % HOST_BLOCK, end - end % HOST_BLOCK
    with Path(path).open("rb") as file:
        try:
            return begin < end and os.lseek(file.fileno(), begin, os.SEEK_DATA) < end
        except OSError:  # there are no data from here on
            return False


def faults(path: Path) -> list[Finding]:
    return [each for each in findings(path) if each.severity is not Severity.NOTE]


@pytest.fixture(params=KINDS, ids=str)
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Chain:
    return Chain(tmp_path, request.param)


def test_the_parents_show_and_the_file_gets_smaller(chain: Chain) -> None:
    with open_disk(chain.paths) as disk:
        shadow = ShadowDisk(disk, chain.content)
        whole = ranges_in_file(disk, 0, disk.size)
        assert any(allocated(*each) for each in whole) or disk.block_size < HOST_BLOCK
        draw = random.Random(3)
        for _ in range(6):
            offset = draw.randrange(disk.size)
            length = draw.randrange(disk.size - offset + 1)
            ranges = ranges_in_file(disk, offset, offset + length)
            chain.drop(disk, offset, length)
            assert not any(allocated(*each) for each in ranges)
            shadow.verify()
            with open_disk(chain.paths, writable=False) as other:  # it is in the file
                assert_same(other.read(0, disk.size), chain.content, 0)
        check_extents(disk, chain.content)
        ranges = ranges_in_file(disk, 0, disk.size)
        chain.drop(disk, 0, disk.size)
        assert not any(allocated(*each) for each in ranges)
        assert all(extent.depth != 0 for extent in disk.extents())
        assert chain.content == chain.below
        shadow.verify()
    assert faults(chain.paths[0]) == []


def test_it_is_written_again_afterwards(chain: Chain) -> None:
    steps = random.Random(8)
    with open_disk(chain.paths, map_budget=4096) as disk:
        shadow = ShadowDisk(disk, chain.content)
        for number in range(12):
            offset = steps.randrange(disk.size)
            length = steps.randrange(disk.size - offset + 1)
            chain.drop(disk, offset, length)
            shadow.write(offset, bytes([number + 1]) * min(5000, disk.size - offset))
            shadow.discard(disk.size // 3, 100_000)
            shadow.write(disk.size // 3, b"again" * 3000)
            shadow.verify()
    with open_disk(chain.paths, writable=False) as disk:
        ShadowDisk(disk, chain.content).verify()
    assert faults(chain.paths[0]) == []


def test_blocks_that_lie_partly_in_the_range_stay(chain: Chain) -> None:
    with open_disk(chain.paths) as disk:
        block = disk.block_size
        for offset, length in ((1, block - 1), (block - 1, 2), (0, block - 1), (block, 0), (0, 0)):
            disk.drop(offset, length)
            ShadowDisk(disk, chain.content).verify()


@pytest.mark.parametrize("chain", KINDS[:1], ids=str, indirect=True)
def test_what_cannot_be_dropped(chain: Chain) -> None:
    with open_disk(chain.paths[-1:]) as disk, pytest.raises(StorageError, match="no parent") as caught:
        disk.drop(0, disk.size)
    assert caught.value.kind is ErrorKind.STATE
    with open_disk(chain.paths, writable=False) as disk, pytest.raises(StorageError) as caught:
        disk.drop(0, disk.size)
    assert caught.value.kind is ErrorKind.READ_ONLY
    with open_disk(chain.paths) as disk, pytest.raises(StorageError) as caught:
        disk.drop(1, disk.size)
    assert caught.value.kind is ErrorKind.RANGE


@pytest.mark.parametrize("operation", [Operation.WRITE, Operation.SYNC, Operation.READ], ids=str)
@pytest.mark.parametrize("chain", KINDS[::7], ids=str, indirect=True)
def test_a_drop_that_fails_changes_nothing(chain: Chain, operation: Operation) -> None:
    """Whichever of its steps fails, the disk shows the same, goes on where it may, and the file is whole."""
    for number in range(1, 40):
        fault = Fault(operation, 1 << 60, errno.EIO)
        disk = open_disk(chain.paths, source=fault.source)
        try:
            disk.read(0, disk.size)
            fault.number = fault.seen + number
            try:
                disk.drop(0, disk.size)
            except StorageError:
                ShadowDisk(disk, chain.content).verify()
            else:
                break
        finally:
            fault.heal()
            try:
                disk.close()
            except StorageError:
                assert operation is Operation.SYNC  # it is poisoned
        with open_disk(chain.paths, writable=False) as again:
            found = again.read(0, again.size)
        assert found in (chain.content, chain.below) or operation is Operation.SYNC
        chain.content[:] = found
    assert number > 1


def test_the_newest_state_of_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "image.hdd"
    drivebay.create(path, size=5 << 20, variant="bundle", block_size=1 << 20)
    content = np.random.default_rng(1).bytes(5 << 20)
    with drivebay.open(path, writable=True) as disk:
        disk.write(0, content)
    create_image(path, parent=path)
    with drivebay.open(path, writable=True) as disk:
        disk.write(1 << 20, b"new" * (1 << 20))
        ranges = ranges_in_file(disk, 0, disk.size)
        assert len(ranges) == 3
        assert all(allocated(*each) for each in ranges)
        disk.drop(0, disk.size)
        assert not any(allocated(*each) for each in ranges)
        assert_same(disk.read(0, disk.size), content, 0)
    with drivebay.open(path) as disk:
        assert_same(disk.read(0, disk.size), content, 0)
    assert faults(path) == []
