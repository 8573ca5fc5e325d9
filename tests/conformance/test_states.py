"""Unallocated, zero and data are three different things, in the map and in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drivebay.blockmap import Table
from drivebay.engine.disk import Disk
from drivebay.formats.vdi.header import FREE, ZERO
from drivebay.model import ExtentState
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk, read_layer
from support.shadow import all_zero

BLOCK = 512 * KIB
SIZE = 6 * BLOCK
DATA, NOTHING, ZEROS = ExtentState.DATA, ExtentState.UNALLOCATED, ExtentState.ZERO


@pytest.fixture(params=[BLOCK, MIB], ids=["same blocks", "larger parent blocks"])
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """The parent: data in blocks 0 and 1, zeros in 2 and 3, nothing in 4 and 5. The child: nothing."""
    parent, child = tmp_path / "parent.vdi", tmp_path / "child.vdi"
    make_image(parent, ImageSpec(SIZE, request.param))
    with open_disk([parent]) as disk:
        disk.write(0, b"p" * 2 * BLOCK)
        disk.zero(2 * BLOCK, 2 * BLOCK)
    make_image(child, ImageSpec(SIZE, BLOCK), parent)
    return [child, parent]


def state(disk: Disk, block: int) -> tuple[ExtentState, int | None]:
    (extent,) = disk.extents(block * BLOCK, BLOCK)
    return extent.state, extent.depth


def entries(path: Path) -> list[int]:
    """The child's block map as it lies in the file."""
    table = read_layer(path).segments[0]
    assert isinstance(table, Table)
    raw = path.read_bytes()[table.root : table.root + 4 * table.count]
    return [int(entry) for entry in np.frombuffer(raw, "<u4")]


def test_an_empty_child_shows_its_parent(chain: list[Path]) -> None:
    with open_disk(chain) as disk:
        found = [state(disk, block) for block in range(6)]
    assert found == [(DATA, 1), (DATA, 1), (ZEROS, 1), (ZEROS, 1), (NOTHING, None), (NOTHING, None)]
    assert entries(chain[0]) == [FREE] * 6


@pytest.mark.parametrize("unmap", [True, False])
def test_zeroed_blocks_hide_the_parent(chain: list[Path], unmap: bool) -> None:
    with open_disk(chain) as disk:
        assert disk.zero_is_fast(0, SIZE)
        disk.zero(0, SIZE, unmap=unmap)
        assert [state(disk, block) for block in range(6)] == [
            (ZEROS, 0),
            (ZEROS, 0),
            (ZEROS, 1),
            (ZEROS, 1),
            (ZEROS, 0),
            (ZEROS, 0),
        ]
        assert all_zero(disk.read(0, SIZE))
        assert disk.stats.copy_ups == 0
    assert entries(chain[0]) == [ZERO, ZERO, FREE, FREE, ZERO, ZERO]
    _reads_zeros(chain)


def test_discarded_blocks_hide_the_parent_and_nothing_stays_nothing(chain: list[Path]) -> None:
    with open_disk(chain) as disk:
        disk.discard(0, SIZE)
        assert [state(disk, block) for block in (0, 3, 5)] == [(ZEROS, 0), (ZEROS, 1), (NOTHING, None)]
        assert disk.stats.copy_ups == 0
    assert entries(chain[0]) == [ZERO, ZERO, FREE, FREE, FREE, FREE]
    _reads_zeros(chain)


def _reads_zeros(chain: list[Path]) -> None:
    with open_disk(chain, writable=False) as disk:
        assert all_zero(disk.read(0, SIZE))
    with open_disk(chain[1:], writable=False) as disk:
        assert disk.read(0, 2 * BLOCK) == b"p" * 2 * BLOCK


@pytest.mark.parametrize("step", ["zero", "discard"])
def test_a_part_of_a_parents_block_is_copied_up(chain: list[Path], step: str) -> None:
    with open_disk(chain) as disk:
        assert not disk.zero_is_fast(100, 1000)
        assert disk.zero_is_fast(3 * BLOCK + 100, 1000)
        getattr(disk, step)(100, 1000)
        getattr(disk, step)(3 * BLOCK + 100, 1000)
        getattr(disk, step)(5 * BLOCK + 100, 1000)
        assert [state(disk, block) for block in (0, 3, 5)] == [(DATA, 0), (ZEROS, 1), (NOTHING, None)]
        assert disk.read(0, BLOCK) == b"p" * 100 + bytes(1000) + b"p" * (BLOCK - 1100)
    assert entries(chain[0]) == [0] + [FREE] * 5


def test_dropped_blocks_give_their_space_back(chain: list[Path]) -> None:
    with open_disk(chain) as disk:
        disk.write(0, b"c" * SIZE)
        disk.flush()
        full = chain[0].stat().st_blocks
        disk.discard(0, 2 * BLOCK)
        disk.zero(4 * BLOCK, BLOCK, unmap=True)
        assert [state(disk, block)[0] for block in (0, 1, 4)] == [ZEROS] * 3
        assert disk.zero_is_fast(0, SIZE)
        disk.flush()
        assert (
            chain[0].stat().st_blocks <= full - 3 * BLOCK // 512 + 64
        )  # the file system keeps some for itself
        disk.zero(5 * BLOCK, BLOCK, unmap=False)
        assert state(disk, 5) == (DATA, 0)
        assert all_zero(disk.read(4 * BLOCK, 2 * BLOCK))
    assert entries(chain[0]) == [ZERO, ZERO, 2, 3, ZERO, 5]
    with open_disk(chain) as disk:
        disk.write(4 * BLOCK + 100, b"reuse")
        assert disk.read(4 * BLOCK, 200) == bytes(100) + b"reuse" + bytes(95)
    assert entries(chain[0]) == [ZERO, ZERO, 2, 3, 0, 5]
    assert chain[0].stat().st_size == 2 * MIB + SIZE


def test_a_fixed_image_keeps_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "fixed.vdi"
    make_image(path, ImageSpec(SIZE, BLOCK, "fixed"))
    with open_disk([path]) as disk:
        disk.write(0, b"f" * SIZE)
        disk.flush()
        full = path.stat().st_blocks
        disk.discard(0, 3 * BLOCK)
        disk.zero(3 * BLOCK, SIZE - 3 * BLOCK)
        disk.flush()
        assert all_zero(disk.read(0, SIZE))
        assert {extent.state for extent in disk.extents()} == {DATA}
    assert path.stat().st_blocks >= full
    assert entries(path) == list(range(6))
