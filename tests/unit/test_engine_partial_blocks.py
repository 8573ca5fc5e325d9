"""Blocks that the active layer has only parts of: nothing is lost or mixed up when they become whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from drivebay.engine.batch import Outcome
from drivebay.engine.disk import Disk
from drivebay.engine.source import FileSource
from support import vhd_images as vhd
from support.disks import open_disk
from support.gated import GatedSource
from support.threads import Gate, start

HALF = b"\xff" * 8 + bytes(8)  # the block's first 64 sectors are there
PART = vhd.BLOCK // 2


@pytest.fixture
def partial_disk(tmp_path: Path) -> Iterator[tuple[Disk, GatedSource]]:
    """A disk whose first block has its first half, all ones; the rest of it was never written."""
    sources: list[GatedSource] = []

    def make(fd: int, name: str, writable: bool) -> FileSource:
        sources.append(GatedSource(fd, name, writable=writable))
        return sources[-1]

    path = tmp_path / "partial.vhd"
    entries = (vhd.sector(0), *(vhd.ABSENT,) * 3)
    path.write_bytes(vhd.make_image(entries=entries, bitmaps=[HALF]))
    with open_disk([path], source=make) as disk:
        disk.verify_writable()
        disk.write(3 * vhd.BLOCK, b"armed")
        yield disk, sources[0]


def test_a_write_to_the_part_that_is_there_waits_for_the_copy(
    partial_disk: tuple[Disk, GatedSource],
) -> None:
    disk, source = partial_disk
    gate = source.gates["write"] = Gate()
    whole = start(partial(disk.write, PART, b"\xaa" * 4096))
    for _ in ("tail", "bitmap"):
        gate.wait_reached()
        before, gate = gate, Gate()
        source.gates["write"] = gate
        before.set()
    gate.wait_reached()  # the part that is there was read, and is about to be written to its new place
    (outcome,) = disk.write_batch([(0, memoryview(b"\xbb" * 4096))])
    there = start(partial(disk.write, 8192, b"\xcc" * 4096))
    time.sleep(0.1)  # let it go wrong, if it can
    gate.set()
    whole.result(60)
    there.result(60)
    wanted = b"\xbb" * 4096 if outcome is Outcome.DONE else b"\1" * 4096
    assert disk.read(0, PART) == wanted + b"\1" * 4096 + b"\xcc" * 4096 + b"\1" * (PART - 12288)
    assert disk.read(PART, PART) == b"\xaa" * 4096 + bytes(PART - 4096)


def test_a_write_under_way_is_in_the_copy(partial_disk: tuple[Disk, GatedSource]) -> None:
    disk, source = partial_disk
    gate = source.gates["write"] = Gate()
    there = start(partial(disk.write, 0, b"\xbb" * 4096))
    gate.wait_reached()
    whole = start(partial(disk.write, PART, b"\xaa" * 4096))
    try:
        with pytest.raises(TimeoutError):
            whole.result(0.2)
    finally:
        gate.set()
    there.result(60)
    whole.result(60)
    assert disk.read(0, 4096) == b"\xbb" * 4096


def test_an_older_reader_does_not_see_the_old_place_emptied(
    partial_disk: tuple[Disk, GatedSource],
) -> None:
    """The copy's commit frees the old place, but what was there was never zeroed by anybody."""
    disk, source = partial_disk
    gate = source.gates["read"] = Gate()
    found = start(partial(disk.read, 0, 4096))
    gate.wait_reached()
    disk.write(PART, b"\xaa" * 4096)
    disk.flush()
    gate.set()
    assert found.result(60) == b"\1" * 4096


def test_a_file_that_ends_within_the_disks_last_block_keeps_its_footer(tmp_path: Path) -> None:
    path = tmp_path / "cut.vhd"
    size = 3 * vhd.BLOCK + 4096
    sizes = {"original_size": size, "current_size": size}
    entries = (*(vhd.ABSENT,) * 3, vhd.sector(0))
    whole = vhd.make_image(entries=entries, bitmaps=[vhd.PRESENT], footer=sizes)
    path.write_bytes(whole[: vhd.FIRST + 512 + 4096] + whole[-512:])
    before = path.read_bytes()
    with open_disk([path]) as disk:
        disk.verify_writable()
        assert path.read_bytes() == before
        disk.write(3 * vhd.BLOCK, b"\2" * 4096)
        assert path.read_bytes()[-512:] == before[-512:]
        disk.write(0, b"\3" * 4096)
        assert path.read_bytes()[-512:] == before[-512:]
        assert disk.read(3 * vhd.BLOCK, 4096) == b"\2" * 4096
        assert disk.read(0, 8192) == b"\3" * 4096 + bytes(4096)
