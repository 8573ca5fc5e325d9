"""Online snapshots: an empty layer becomes the active one while the disk is in use; and quiescing."""

from __future__ import annotations

import functools
import itertools
import threading
from pathlib import Path

import pytest

from drivebay.engine.batch import Outcome
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from support.chains import Stage
from support.disks import KIB, MIB, ImageSpec, make_image, open_layer
from support.shadow import ShadowDisk, assert_same, check_extents
from support.threads import start

BLOCK = 512 << 10


def push(disk: Disk, stage: Stage, block: int = BLOCK) -> Path:
    """Push a new differencing image onto the disk and the stage."""
    path = stage.paths[0].with_name(f"pushed{len(stage.paths)}.vdi")
    make_image(path, ImageSpec(disk.size, block), stage.paths[0])
    disk.push(open_layer(path, writable=disk.writable))
    stage.paths.insert(0, path)
    return path


@pytest.mark.parametrize("block", [512 * KIB, 2 * MIB])
def test_what_was_active_changes_no_more(stage: Stage, block: int) -> None:
    steps = stage.steps(seed=21)
    with stage.open(map_budget=4096) as disk:
        shadow = ShadowDisk(disk, stage.content)
        for depth in range(len(stage.paths), len(stage.paths) + 3):
            for _ in range(8):
                steps.step(shadow)
            assert disk.depth == depth
            below = stage.paths[0]
            push(disk, stage, block)
            frozen = below.read_bytes()
            shadow.verify()
            for _ in range(8):
                steps.step(shadow)
            disk.flush()
            shadow.verify()
            check_extents(disk, stage.content)
            assert below.read_bytes() == frozen
    with stage.open(writable=False) as disk:
        ShadowDisk(disk, stage.content).verify()


def test_the_snapshot_holds_what_was_written_before_it(stage: Stage) -> None:
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(BLOCK - 100, b"before" * 100)
        shadow.discard(2 * BLOCK, 1000)
        before = bytes(stage.content)
        old = list(stage.paths)
        push(disk, stage)
        shadow.write(BLOCK - 100, b"after!" * 100)
        shadow.zero(0, disk.size)
        shadow.verify()
    stage.paths[:] = old
    with stage.open(writable=False) as disk:
        assert_same(disk.read(0, disk.size), before, 0)


@pytest.mark.parametrize("case", ["differencing", "dynamic", "raw", "mixed-blocks"], indirect=True)
def test_pushing_while_others_write(stage: Stage) -> None:
    """Every snapshot is a moment: of each thread's numbered writes it holds all up to one."""
    with stage.open() as disk:
        done = threading.Event()

        def count(slot: int) -> int:
            for value in itertools.count(1):
                data = value.to_bytes(8, "little") * 64
                for place in (slot, slot + 8):  # first here, then in another block
                    disk.write(place % 8 * 4096 + place // 8 * BLOCK * 2, data)
                if done.is_set():
                    return value
            raise AssertionError

        counters = [start(functools.partial(count, slot)) for slot in range(3)]
        snapshots = []
        for _ in range(4):
            push(disk, stage)
            snapshots.append(list(stage.paths[1:]))
        done.set()
        last = [future.result(60) for future in counters]
        final = [_value(disk, slot) for slot in range(3)]
        assert final == [(value, value) for value in last]
    _check_snapshots(stage, snapshots)


def _value(disk: Disk, slot: int) -> tuple[int, int]:
    first = int.from_bytes(disk.read(slot * 4096, 8), "little")
    second = int.from_bytes(disk.read(slot * 4096 + 2 * BLOCK, 8), "little")
    return first, second


def _check_snapshots(stage: Stage, snapshots: list[list[Path]]) -> None:
    highest = [0, 0, 0]
    for paths in snapshots:
        stage.paths[:] = paths
        with stage.open(writable=False) as disk:
            for slot in range(3):
                first, second = _value(disk, slot)
                if first > 1 << 32:  # still the parent's random content
                    assert highest[slot] == 0
                    continue
                assert first == second + 1 or first == second or second > 1 << 32
                assert first >= highest[slot]
                highest[slot] = first


def test_batches_leave_what_was_active_alone(stage: Stage) -> None:
    """Its file is open for writing, so only the map keeps a write away from it."""
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(0, b"old" * BLOCK)
        below = push(disk, stage).with_name(stage.paths[1].name)
        frozen = below.read_bytes()
        shadow.write(0, b"new")
        shadow.flush()
        for offset, length in ((BLOCK, 512), (BLOCK - 100, 200), (BLOCK + 512, BLOCK), (0, 2 * BLOCK)):
            view = memoryview(b"?" * length)
            assert disk.write_batch([(offset, view)]) == [Outcome.LATER]
        assert disk.write_batch([(100, memoryview(b"in place"))]) == [Outcome.DONE]
        assert below.read_bytes() == frozen


def test_quiesce_holds_writers_and_flushes(stage: Stage) -> None:
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(0, b"before" * 1000)
        with disk.quiesce():
            waiting = start(lambda: disk.write(10_000, b"during"))
            assert disk.write_batch([(0, memoryview(b"x"))]) == [Outcome.LATER]
            shadow.verify()
            with stage.open(writable=False) as other:
                assert_same(other.read(0, other.size), stage.content, 0)
            assert not waiting.done()
        waiting.result(60)
        stage.content[10_000:10_006] = b"during"
        shadow.verify()


def test_several_may_quiesce_and_push_meanwhile(stage: Stage) -> None:
    """A snapshot of a machine quiesces all its disks, then pushes a layer onto each."""
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(0, b"before" * 1000)
        with disk.quiesce(), disk.quiesce():
            push(disk, stage)
        shadow.write(0, b"after" * 1000)
        shadow.verify()


def test_layers_that_cannot_be_pushed(stage: Stage, tmp_path: Path) -> None:
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(0, b"x" * 512)
        make_image(tmp_path / "small.vdi", ImageSpec(disk.size + 512, BLOCK), stage.paths[0])
        make_image(tmp_path / "full.raw", ImageSpec(disk.size, format="raw"))
        make_image(tmp_path / "closed.vdi", ImageSpec(disk.size, BLOCK), stage.paths[0])
        for name, kind, writable in (
            ("small.vdi", ErrorKind.INVALID, True),
            ("full.raw", ErrorKind.INVALID, True),
            ("closed.vdi", ErrorKind.READ_ONLY, False),
        ):
            layer = open_layer(tmp_path / name, writable=writable)
            with pytest.raises(StorageError) as caught:
                disk.push(layer)
            layer.sources[0].close()
            assert caught.value.kind is kind
        assert disk.depth == len(stage.paths)
        shadow.write(512, b"goes on")
        shadow.verify()


def test_a_read_only_disk_takes_a_layer_too(stage: Stage) -> None:
    with stage.open(writable=False) as disk:
        push(disk, stage)
        ShadowDisk(disk, stage.content).verify()
        assert disk.depth == len(stage.paths)
