"""Many threads on one disk: distinct ranges come out exactly, nothing hangs."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable

import numpy as np
import pytest

from drivebay.engine.batch import Outcome
from drivebay.engine.disk import Disk
from drivebay.model import CacheMode
from support.chains import Case, Stage
from support.shadow import all_zero, assert_same, check_extents
from support.threads import run_all

BLOCK = 512 << 10
THREADS = 4
STRIPE = 4096  # each thread owns every fourth stripe: all of them share every block


class Owner:
    """Writes, zeroes and discards its own stripes, and knows what is in them."""

    def __init__(self, disk: Disk, number: int, stripe: int = STRIPE) -> None:
        self.disk = disk
        self.number = number
        self.size = stripe
        self.stripes: dict[int, bytes] = {}
        self._draw = random.Random(number)
        self._bytes = np.random.default_rng(number).bytes

    def run(self, steps: int) -> None:
        for _ in range(steps):
            stripe = self._draw.randrange(self.disk.size // self.size // THREADS) * THREADS + self.number
            self._step(stripe * self.size)

    def _step(self, offset: int) -> None:
        kind = self._draw.randrange(6)
        self.stripes[offset] = bytes(self.size) if kind < 2 else self._bytes(self.size)
        if kind == 0:
            self.disk.zero(offset, self.size)
        elif kind == 1:
            self.disk.discard(offset, self.size)
        else:
            self.disk.write(offset, self.stripes[offset], fua=kind == 5)
        assert self.disk.read(offset, self.size) == self.stripes[offset]


def expected(stage: Stage, owners: list[Owner]) -> bytearray:
    content = bytearray(stage.content)
    for owner in owners:
        for offset, data in owner.stripes.items():
            content[offset : offset + len(data)] = data
    return content


def until(done: threading.Event, step: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        while not done.is_set():
            step()

    return run


def test_writers_of_distinct_stripes(stage: Stage) -> None:
    with stage.open() as disk:
        owners = [Owner(disk, number) for number in range(THREADS)]
        done = threading.Event()

        def work() -> None:
            try:
                run_all(*(lambda owner=owner: owner.run(40) for owner in owners))
            finally:
                done.set()

        run_all(work, until(done, disk.flush), until(done, lambda: list(disk.extents())))
        content = expected(stage, owners)
        assert_same(disk.read(0, disk.size), content, 0)
        check_extents(disk, content)
    with stage.open(writable=False) as disk:
        assert_same(disk.read(0, disk.size), content, 0)


@pytest.mark.parametrize("case", [Case("differencing", BLOCK, CacheMode.DIRECT)], ids=str, indirect=True)
def test_unaligned_neighbours_past_the_page_cache(stage: Stage) -> None:
    with stage.open() as disk:
        owners = [Owner(disk, number, stripe=1000) for number in range(THREADS)]
        run_all(*(lambda owner=owner: owner.run(40) for owner in owners))
        assert_same(disk.read(0, disk.size), expected(stage, owners), 0)


@pytest.mark.parametrize("case", ["differencing", "dynamic", "raw"], indirect=True)
def test_overlapping_whole_blocks(stage: Stage) -> None:
    """Whoever comes last wins, but each sector is one thread's: written, or zero, or as it was."""
    with stage.open() as disk:

        def work(number: int) -> None:
            draw = random.Random(number)
            for _ in range(25):
                offset = draw.randrange(disk.size // BLOCK) * BLOCK
                draw.choice(
                    (
                        lambda: disk.write(offset, bytes([number + 1]) * BLOCK),  # noqa: B023
                        lambda: disk.write(offset + 4096, bytes([number + 1]) * 8192),  # noqa: B023
                        lambda: disk.discard(offset, BLOCK),  # noqa: B023
                        lambda: disk.zero(offset, BLOCK),  # noqa: B023
                        disk.flush,
                    )
                )()

        run_all(*(lambda number=number: work(number) for number in range(THREADS)))
        content = disk.read(0, disk.size)
        _check_sectors(content, stage.content)
    with stage.open(writable=False) as disk:
        assert_same(disk.read(0, disk.size), content, 0)


def _check_sectors(content: bytes, before: bytearray) -> None:
    for at in range(0, len(content), 512):
        sector = content[at : at + 512]
        if sector != before[at : at + 512] and not all_zero(sector):
            assert sector == sector[:1] * 512
            assert 1 <= sector[0] <= THREADS


@pytest.mark.parametrize("case", ["differencing", "dynamic", "on-raw", "mixed-blocks"], indirect=True)
def test_the_batch_forms_beside_blocking_writers(stage: Stage) -> None:
    """A serving loop writes in place, while a pool allocates, drops and flushes other blocks."""
    with stage.open() as disk:
        disk.write(0, b"\1" * BLOCK)
        done = threading.Event()
        passed = []

        def loop() -> None:
            for value in itertools.count(2):
                data = bytes([value % 256]) * 4096
                offset = value % 128 * 4096
                assert disk.write_batch([(offset, memoryview(data))]) == [Outcome.DONE]
                view = memoryview(bytearray(4096))
                outcome = disk.read_batch([(offset, view)])[0]
                assert outcome is Outcome.LATER or view == data
                if done.is_set():
                    break
            passed.append(value)

        def pool() -> None:
            try:
                for _ in range(20):
                    disk.write(2 * BLOCK - 100, b"pool" * 1000)
                    disk.discard(BLOCK, 2 * BLOCK)
                    disk.flush()
            finally:
                done.set()

        run_all(loop, pool)
        content = disk.read(0, BLOCK)
        assert all(len(set(content[at : at + 4096])) == 1 for at in range(0, BLOCK, 4096))
        assert passed[0] > 2
        assert all_zero(disk.read(BLOCK, 2 * BLOCK))
