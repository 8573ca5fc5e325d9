"""A map larger than its budget: pages come and go, and nothing that waits for a commit is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivebay.engine.disk import Disk
from drivebay.model import ExtentState
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk
from support.threads import run_all

BLOCK = 512 * KIB
PAGE = 512 * BLOCK
SIZE = 5 * PAGE + 3 * BLOCK + 1536  # six pages of the map
STRIPE = 4096
ONE_PAGE = 4096


@pytest.fixture(params=[(BLOCK,), (2 * MIB, BLOCK), (BLOCK, BLOCK, MIB)], ids=str)
def paths(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """Chains with data all over the lower images."""
    chain: list[Path] = []
    for number, block in enumerate(request.param):
        path = tmp_path / f"{number}.vdi"
        make_image(path, ImageSpec(SIZE - 1024 * number, block), chain[0] if chain else None)
        chain.insert(0, path)
        if number < len(request.param) - 1:
            with open_disk(chain) as disk:
                for offset in stripes(number, 12):
                    disk.write(offset, bytes([number + 1]) * STRIPE)
    return chain


def stripes(seed: int, count: int, owner: int = 0) -> Iterator[int]:
    """Offsets of stripes all over the disk; those of different owners are different."""
    draw = random.Random(seed)
    for _ in range(count):
        yield draw.randrange(SIZE // STRIPE // 4 - 1) // 8 * 8 * 4 * STRIPE + owner * STRIPE


@pytest.mark.parametrize("budget", [ONE_PAGE, 3 * ONE_PAGE])
def test_writes_all_over_the_disk(paths: list[Path], budget: int) -> None:
    known: dict[int, bytes] = {}
    with open_disk(paths, map_budget=budget) as disk:
        for number, offset in enumerate(stripes(7, 60)):
            known[offset] = bytes(STRIPE) if number % 5 == 4 else bytes([number + 100]) * STRIPE
            if number % 5 == 4:
                disk.discard(offset, STRIPE)
            else:
                disk.write(offset, known[offset])
            if number % 9 == 8:
                disk.flush()
        assert read_all(disk, known) == known
        assert_extents_cover(disk)
    with open_disk(paths, writable=False, map_budget=budget) as disk:
        assert read_all(disk, known) == known


def test_changes_keep_their_pages_until_the_commit(paths: list[Path]) -> None:
    with open_disk(paths, map_budget=ONE_PAGE) as disk:
        disk.write(1024, b"new" * 100)
        assert disk.stats.commits == 1, "the one page is more than a quarter of the budget"
    with open_disk(paths, map_budget=4 * ONE_PAGE) as disk:
        disk.write(PAGE + 1024, b"new" * 100)
        committed = disk.stats.commits
        for page in (2, 3, 4, 5):
            disk.read(page * PAGE, 512)
        assert disk.stats.map_bytes == 4 * ONE_PAGE
        assert disk.stats.commits == committed, "one page of four may wait"
        for page in range(2):
            assert disk.read(page * PAGE + 1024, 300) == b"new" * 100
        disk.flush()
        for page in range(2):
            assert disk.read(page * PAGE + 1024, 300) == b"new" * 100


def test_threads_on_a_map_of_one_page(paths: list[Path]) -> None:
    known: list[dict[int, bytes]] = [{} for _ in range(3)]
    with open_disk(paths, map_budget=ONE_PAGE) as disk:
        done = threading.Event()

        def write(owner: int) -> None:
            for number, offset in enumerate(stripes(owner, 50, owner)):
                known[owner][offset] = bytes([owner * 50 + number]) * STRIPE
                disk.write(offset, known[owner][offset])
                assert disk.read(offset, STRIPE) == known[owner][offset]

        def flush() -> None:
            while not done.is_set():
                disk.flush()

        def work() -> None:
            try:
                run_all(*(lambda owner=owner: write(owner) for owner in range(3)))
            finally:
                done.set()

        run_all(work, flush)
        for owned in known:
            assert read_all(disk, owned) == owned
    with open_disk(paths, writable=False) as disk:
        for owned in known:
            assert read_all(disk, owned) == owned


def test_one_read_over_more_pages_than_fit(paths: list[Path]) -> None:
    with open_disk(paths, map_budget=ONE_PAGE) as disk:
        disk.write(PAGE - 100, b"x" * 200)
        assert disk.read(PAGE - 200, 400) == bytes(100) + b"x" * 200 + bytes(100)
        disk.discard(0, disk.size)
        assert {extent.state for extent in disk.extents()} <= {ExtentState.ZERO, ExtentState.UNALLOCATED}


def read_all(disk: Disk, known: dict[int, bytes]) -> dict[int, bytes]:
    return {offset: disk.read(offset, STRIPE) for offset in known}


def assert_extents_cover(disk: Disk) -> None:
    position = 0
    for extent in disk.extents():
        assert extent.start == position
        position += extent.length
    assert position == disk.size
