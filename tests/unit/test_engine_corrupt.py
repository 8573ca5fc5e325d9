"""Block tables that point where they must not: one block is lost, the rest is not, nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from drivebay.engine.batch import Outcome
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.header import FREE
from drivebay.model import ExtentState
from support.disks import ImageSpec, open_disk
from support.disks import make_image as make_child
from support.vdi_images import BLOCK, make_image

BAD = [4, 1 << 20, 0xFFFFFFFD]


def damaged(folder: Path, entry: int) -> Path:
    """An image whose block 1 points to unit ``entry``; blocks 0 and 2 are sound, block 3 is free."""
    path = folder / "damaged.vdi"
    path.write_bytes(make_image(entries=[0, entry, 1, FREE], units=2))
    return path


def refused(call: Callable[[], object], path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        call()
    assert caught.value.kind is ErrorKind.CORRUPT
    assert caught.value.path == str(path)
    assert "drivebay check" in caught.value.message


@pytest.mark.parametrize("entry", BAD)
def test_only_that_block_is_unreadable(tmp_path: Path, entry: int) -> None:
    path = damaged(tmp_path, entry)
    with open_disk([path], writable=False) as disk:
        _check_reads(disk, path)
        refused(lambda: list(disk.extents()), path)
        assert [extent.state for extent in disk.extents(2 * BLOCK)] == [
            ExtentState.DATA,
            ExtentState.UNALLOCATED,
        ]
        disk.prefetch(0, disk.size)


def _check_reads(disk: Disk, path: Path) -> None:
    assert disk.read(0, BLOCK) == b"\1" * BLOCK
    assert disk.read(2 * BLOCK, 2 * BLOCK) == b"\2" * BLOCK + bytes(BLOCK)
    for offset, length in ((BLOCK, 1), (2 * BLOCK - 1, 1), (BLOCK - 1, 2), (0, 4 * BLOCK)):
        refused(partial(disk.read, offset, length), path)
    views = [memoryview(bytearray(512)) for _ in range(4)]
    requests = [(0, views[0]), (BLOCK, views[1]), (BLOCK - 256, views[2]), (3 * BLOCK, views[3])]
    assert disk.read_batch(requests) == [Outcome.DONE, Outcome.LATER, Outcome.LATER, Outcome.ZERO]


@pytest.mark.parametrize("entry", [*BAD, 0, 1])
def test_nothing_is_written(tmp_path: Path, entry: int) -> None:
    """0 and 1 are units that other entries point to."""
    path = damaged(tmp_path, entry)
    before = path.read_bytes()
    with open_disk([path]) as disk:
        for call in (
            lambda: disk.write(0, b"x"),
            lambda: disk.write(3 * BLOCK, b"x"),
            lambda: disk.zero(2 * BLOCK, BLOCK),
            lambda: disk.discard(BLOCK, BLOCK),
            disk.verify_writable,
        ):
            refused(call, path)
        assert disk.write_batch([(0, memoryview(b"x"))]) == [Outcome.LATER]
        assert disk.read(0, BLOCK) == b"\1" * BLOCK
        disk.flush()
    assert path.read_bytes() == before


@pytest.mark.parametrize("entry", BAD)
def test_a_damaged_parent_loses_its_block_only(tmp_path: Path, entry: int) -> None:
    parent, child = damaged(tmp_path, entry), tmp_path / "child.vdi"
    make_child(child, ImageSpec(4 * BLOCK, BLOCK), parent)
    before = parent.read_bytes()
    with open_disk([child, parent]) as disk:
        _check_reads(disk, parent)
        refused(lambda: disk.write(BLOCK + 100, b"x"), parent)
        refused(lambda: disk.write(BLOCK, bytes(BLOCK)), parent)
        refused(lambda: disk.zero(BLOCK, BLOCK), parent)
        disk.write(100, b"sound")
        disk.write(3 * BLOCK, b"sound")
        disk.flush()
        assert disk.read(98, 8) == b"\1\1sound\1"
    assert parent.read_bytes() == before


def test_a_table_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    """The file was truncated behind drivebay's back."""
    path = damaged(tmp_path, 1)
    with open_disk([path]) as disk:
        with path.open("r+b") as file:
            file.truncate((1 << 20) + 7)
        with pytest.raises(StorageError, match="truncated") as caught:
            disk.read(0, 512)
        assert caught.value.kind is ErrorKind.IO
        with pytest.raises(StorageError):
            disk.write(0, b"x")
