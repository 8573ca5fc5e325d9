"""Freezing a disk, and replacing all its layers while it is in use."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drivebay.engine.batch import Outcome
from drivebay.engine.disk import Disk
from drivebay.engine.source import OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode
from support.chains import EACH_FORMAT, Case, Stage
from support.disks import KIB, ImageSpec, copy_image, files_of, make_image, open_disk, open_layer
from support.shadow import ShadowDisk, assert_same, check_extents
from support.threads import run_all, start

BLOCK = 512 << 10
STRIPE = 4096
MIXED = [
    *(Case(shape, BLOCK, CacheMode.WRITEBACK) for shape in ("differencing", "on-raw", "mixed-blocks")),
    *(case for case in EACH_FORMAT if case.shape == "child"),
]


class Rebaser:
    """Moves a disk to copies of its files, and spoils the old ones: nothing may come from them any more."""

    def __init__(self, disk: Disk, stage: Stage) -> None:
        self.disk = disk
        self.stage = stage
        self._turn = itertools.count()

    def rebase(self, *, keep_top: bool) -> None:
        with self.disk.freeze():
            folder = self.stage.paths[-1].parent / f"turn{next(self._turn)}"
            folder.mkdir()
            old = self.stage.paths
            moved = [copy_image(path, folder) for path in old]
            new = [old[0] if keep_top else moved[0], *moved[1:]]
            self.disk.rebase([*self._top(new[0], keep=keep_top), *map(open_layer, new[1:])])
            for path in old[keep_top:]:
                spoil(path)
            self.stage.paths = new

    def _top(self, path: Path, *, keep: bool) -> list[OpenedLayer]:
        return [self.disk.layers[0] if keep else open_layer(path, writable=self.disk.writable)]


def spoil(path: Path) -> None:
    for file in files_of(path):
        size = file.stat().st_size
        file.write_bytes(b"\xcc" * size)


@pytest.mark.parametrize("keep_top", [True, False])
def test_the_same_disk_on_other_files(stage: Stage, keep_top: bool) -> None:
    if keep_top and stage.paths[0].is_dir():
        pytest.skip("the states of a bundle are in one folder")
    steps = stage.steps(seed=31)
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        rebaser = Rebaser(disk, stage)
        for _ in range(3):
            for _ in range(6):
                steps.step(shadow)
            rebaser.rebase(keep_top=keep_top)
            shadow.verify()
            check_extents(disk, stage.content)
    with stage.open(writable=False) as disk:
        ShadowDisk(disk, stage.content).verify()


def test_a_read_only_disk(stage: Stage) -> None:
    with stage.open(writable=False) as disk:
        ShadowDisk(disk, stage.content).verify()
        Rebaser(disk, stage).rebase(keep_top=False)
        ShadowDisk(disk, stage.content).verify()
        with pytest.raises(StorageError, match="read-only"):
            disk.write(0, b"x")


class Owner:
    """Writes, zeroes and reads stripes of its own through the blocking forms or the batch forms."""

    def __init__(self, disk: Disk, number: int, of: int) -> None:
        self._disk = disk
        self._draw = random.Random(number)
        self._bytes = np.random.default_rng(number).bytes
        self._mine = range(number * STRIPE, disk.size - STRIPE, of * STRIPE)
        self.stripes: dict[int, bytes] = {}

    def block_step(self) -> None:
        offset = self._draw.choice(self._mine)
        kind = self._draw.randrange(5)
        data = bytes(STRIPE) if kind == 0 else self._bytes(STRIPE)
        if kind == 0:
            self._disk.discard(offset, STRIPE)
        else:
            self._disk.write(offset, data, fua=kind == 4)
        self.stripes[offset] = data
        for known in self._draw.sample(list(self.stripes), min(3, len(self.stripes))):
            assert_same(self._disk.read(known, STRIPE), self.stripes[known], known)

    def batch_step(self) -> None:
        offset = self._draw.choice(self._mine)
        data = self._bytes(STRIPE)
        if self._disk.write_batch([(offset, memoryview(data))]) == [Outcome.LATER]:
            self._disk.write(offset, data)
        self.stripes[offset] = data
        known = self._draw.sample(list(self.stripes), min(4, len(self.stripes)))
        views = [memoryview(bytearray(STRIPE)) for _ in known]
        outcomes = self._disk.read_batch(list(zip(known, views, strict=True)))
        for place, view, outcome in zip(known, views, outcomes, strict=True):
            if outcome is Outcome.LATER:
                self._disk.read_into(place, view)
            assert_same(view, self.stripes[place], place)


@pytest.mark.parametrize("keep_top", [True, False])
@pytest.mark.parametrize("case", MIXED, ids=str, indirect=True)
def test_readers_and_writers_notice_nothing(stage: Stage, keep_top: bool) -> None:
    with stage.open(map_budget=4096) as disk:
        owners = [Owner(disk, number, 3) for number in range(3)]
        done = threading.Event()

        def until_done(step: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                while not done.is_set():
                    step()

            return run

        def moving() -> None:
            try:
                rebaser = Rebaser(disk, stage)
                for _ in range(4):
                    done.wait(0.05)
                    rebaser.rebase(keep_top=keep_top)
            finally:
                done.set()

        run_all(
            until_done(owners[0].block_step),
            until_done(owners[1].block_step),
            until_done(owners[2].batch_step),
            until_done(lambda: list(disk.extents())),
            until_done(disk.flush),
            moving,
        )
        content = bytearray(stage.content)
        for owner in owners:
            for offset, data in owner.stripes.items():
                content[offset : offset + STRIPE] = data
        assert_same(disk.read(0, disk.size), content, 0)
        check_extents(disk, content)
    with stage.open(writable=False) as disk:
        assert_same(disk.read(0, disk.size), content, 0)


def test_a_frozen_disk_is_flushed_and_nothing_begins(stage: Stage) -> None:
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(0, b"before" * 1000)
        view = memoryview(bytearray(512))
        with disk.freeze():
            waiting = [
                start(lambda: disk.read(0, 512)),
                start(lambda: disk.write(10_000, b"during")),
                start(disk.flush),
                start(lambda: list(disk.extents())),
                start(lambda: disk.zero_is_fast(0, 512)),
                start(lambda: disk.prefetch(0, 512)),
            ]
            assert disk.write_batch([(0, view)]) == disk.read_batch([(0, view)]) == [Outcome.LATER]
            with stage.open(writable=False) as other:
                assert_same(other.read(0, other.size), stage.content, 0)
            threading.Event().wait(0.05)
            assert not any(each.done() for each in waiting)
        for each in waiting:
            each.result(60)
        stage.content[10_000:10_006] = b"during"
        shadow.verify()


@pytest.mark.parametrize("case", ["differencing"], indirect=True)
def test_others_who_freeze_or_push_wait(stage: Stage) -> None:
    with stage.open() as disk:
        path = stage.paths[0].with_name("pushed.vdi")
        make_image(path, ImageSpec(disk.size, BLOCK), stage.paths[0])
        order: list[str] = []

        def freeze() -> None:
            with disk.freeze():
                order.append("frozen")

        def push() -> None:
            disk.push(open_layer(path, writable=True))
            order.append("pushed")

        with disk.freeze():
            waiting = [start(freeze), start(push)]
            threading.Event().wait(0.05)
            order.append("first")
        for each in waiting:
            each.result(60)
        assert order[0] == "first"
        assert sorted(order) == ["first", "frozen", "pushed"]
        ShadowDisk(disk, stage.content).verify()


@pytest.mark.parametrize("case", ["differencing"], indirect=True)
def test_closing_ends_the_waiting(stage: Stage) -> None:
    disk = stage.open()
    with disk.freeze():
        waiting = start(lambda: disk.read(0, 512))
        disk.close()
        with pytest.raises(StorageError, match="closed"):
            waiting.result(60)
        layers = [open_layer(path, writable=not depth) for depth, path in enumerate(stage.paths)]
        with pytest.raises(StorageError, match="closed"):
            disk.rebase(layers)
    for layer in layers:
        layer.sources[0].close()  # they stayed ours


@pytest.mark.parametrize("case", ["differencing", "dynamic"], indirect=True)
def test_refused_layers_change_nothing(stage: Stage, tmp_path: Path) -> None:
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(100, b"kept" * 1000)
        make_image(tmp_path / "small.vdi", ImageSpec(disk.size + 512, BLOCK), None)
        before = disk.layers
        for path, writable, kind in (
            (tmp_path / "small.vdi", True, ErrorKind.INVALID),
            (stage.paths[0], False, ErrorKind.READ_ONLY),
        ):
            layer = open_layer(path, writable=writable)
            with disk.freeze(), pytest.raises(StorageError) as caught:
                disk.rebase([layer])
            assert caught.value.kind is kind
            layer.sources[0].close()
        with pytest.raises(StorageError, match="frozen"):
            disk.rebase(before)
        assert disk.layers == before
        shadow.write(BLOCK + 100, b"goes on" * 1000)
        shadow.verify()


@pytest.mark.parametrize("case", ["differencing"], indirect=True)
def test_finer_blocks_below_a_kept_top(stage: Stage, tmp_path: Path) -> None:
    """The granule of the map changes, and blocks are there in part."""
    flat = tmp_path / "flat.vhd"
    make_image(flat, ImageSpec(len(stage.content), 64 * KIB, format="vhd"), None)
    with open_disk([flat]) as copy:
        copy.write(0, stage.content)
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(3000, b"top" * 1000)
        granule = disk._map.granule
        with disk.freeze():
            disk.rebase([disk.layers[0], open_layer(flat)])
        assert disk._map.granule < granule
        shadow.verify()
        shadow.write(BLOCK * 2 - 100, b"on" * 500)
        shadow.verify()
        check_extents(disk, stage.content)
