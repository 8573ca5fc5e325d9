"""An image all of whose units are taken: those that are dropped come back, but not too soon."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from drivebay.engine.disk import Disk
from drivebay.engine.source import FileSource
from support.disks import KIB, ImageSpec, make_image, open_disk
from support.gated import GatedSource
from support.shadow import ShadowDisk
from support.threads import Gate, run_all, start

BLOCK = 512 * KIB
BLOCKS = 4


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[Disk, GatedSource]]:
    """A disk with a unit for every block, each full of its number plus 1, and its source."""
    sources: list[GatedSource] = []

    def make(fd: int, name: str, writable: bool) -> FileSource:
        sources.append(GatedSource(fd, name, writable=writable))
        return sources[-1]

    path = tmp_path / "full.vdi"
    make_image(path, ImageSpec(BLOCKS * BLOCK, BLOCK))
    with open_disk([path], source=make) as disk:
        for block in range(BLOCKS):
            disk.write(block * BLOCK, bytes([block + 1]) * BLOCK)
        disk.flush()
        yield disk, sources[0]


def test_units_come_back_within_one_epoch(full: tuple[Disk, GatedSource]) -> None:
    disk, _ = full
    content = bytearray(b"".join(bytes([block + 1]) * BLOCK for block in range(BLOCKS)))
    shadow = ShadowDisk(disk, content)
    for number in range(12):
        shadow.discard(number * 3 % BLOCKS * BLOCK, BLOCK)
        shadow.discard((number * 3 + 1) % BLOCKS * BLOCK, BLOCK)
        shadow.write((number * 3 + 1) % BLOCKS * BLOCK + 100, b"again" * 1000)
        shadow.write(number * 3 % BLOCKS * BLOCK, b"and again" * 1000)
        shadow.verify()


@pytest.mark.parametrize("operation", ["read", "write"])
def test_not_while_an_older_operation_uses_it(full: tuple[Disk, GatedSource], operation: str) -> None:
    """A reader or writer in place that was overtaken by a discard must not meet another block's data."""
    disk, source = full
    gate = source.gates[operation] = Gate()
    found = bytearray(BLOCK)
    read, write = partial(disk.read_into, 0, memoryview(found)), partial(disk.write, 0, b"\xee" * BLOCK)
    old = start(read if operation == "read" else write)
    gate.wait_reached()
    disk.discard(0, 2 * BLOCK)
    new = start(partial(disk.write, 0, b"\x99" * 2 * BLOCK))
    with pytest.raises(TimeoutError):
        new.result(0.2)
    gate.set()
    old.result(60)
    new.result(60)
    assert set(found) <= {0, 1}
    assert disk.read(BLOCK, BLOCK) == b"\x99" * BLOCK


def test_two_writers_of_the_dropped_block_do_not_wait_for_each_other(
    full: tuple[Disk, GatedSource],
) -> None:
    """One allocates and needs the unit that the other, an older operation, may still use, who waits for
    the block to be allocated.
    """
    disk, source = full
    disk.discard(0, BLOCK)
    gate = source.gates["sync"] = Gate()
    first = start(lambda: disk.write(0, b"\x77" * 4096))  # must commit the discard to get a unit
    gate.wait_reached()
    second = start(lambda: disk.write(8192, b"\x88" * 4096))
    with pytest.raises(TimeoutError):
        second.result(0.1)
    gate.set()
    first.result(10)
    second.result(10)
    assert disk.read(0, 12288) == b"\x77" * 4096 + bytes(4096) + b"\x88" * 4096


def test_many_threads_on_a_full_image(full: tuple[Disk, GatedSource]) -> None:
    disk, _ = full

    def work(number: int) -> None:
        for step in range(15):
            block = (number + step) % BLOCKS * BLOCK
            disk.discard(block, BLOCK)
            for part in range(4):
                disk.write(block + number * 16384 + part * 4096, bytes([number + 100]) * 4096)

    run_all(*(lambda number=number: work(number) for number in range(4)))
    content = disk.read(0, disk.size)
    for at in range(0, len(content), 4096):
        owner = at % BLOCK // 16384
        allowed = {0, owner + 100} if owner < 4 else {0}
        assert set(content[at : at + 4096]) <= allowed
    disk.flush()
