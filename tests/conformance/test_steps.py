"""Single steps over each shape of chain."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from drivebay.engine.batch import Outcome
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import ExtentState
from support.chains import Stage
from support.shadow import ShadowDisk, all_zero, check_extents

BLOCK = 512 << 10
RANGES = ((777, 5000), (BLOCK // 2, 2 * BLOCK), (0, BLOCK))


def pattern(length: int, seed: int = 1) -> bytes:
    return bytes((seed + 7 * i) % 251 + 1 for i in range(257)) * (length // 257 + 1)


def data(length: int, seed: int = 1) -> bytes:
    return pattern(length, seed)[:length]


def test_unaligned_writes(shadow: ShadowDisk) -> None:
    offsets = (2 * BLOCK + 12_345, 0, 1, 511, 513, BLOCK - 1, BLOCK - 511)
    for number, (offset, length) in enumerate(itertools.product(offsets, (1, 511, 513, 4096))):
        shadow.write(offset, data(length, number))
        shadow.verify(max(offset - 5000, 0), length + 10_000)
    shadow.verify()


def test_one_write_across_every_block(shadow: ShadowDisk) -> None:
    size = len(shadow.content)
    shadow.write(300, data(size - 700))
    shadow.verify()


def test_the_last_byte(shadow: ShadowDisk, stage: Stage) -> None:
    size = len(shadow.content)
    shadow.write(size - 1, b"Z")
    shadow.verify(size - 1000, 1000)
    shadow.disk.close()
    with stage.open(writable=False) as disk:
        assert disk.read(size - 1, 1) == b"Z"


@pytest.mark.parametrize("unmap", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_zero(shadow: ShadowDisk, unmap: bool, before: bool) -> None:
    for offset, length in RANGES:
        if before:
            shadow.write(0, data(3 * BLOCK))
        shadow.zero(offset, length, unmap=unmap)
        shadow.verify()
        shadow.flush()
        shadow.write(offset + 5, data(100, 2))
        shadow.verify()


@pytest.mark.parametrize("before", [True, False])
def test_discard(shadow: ShadowDisk, before: bool) -> None:
    for offset, length in RANGES:
        if before:
            shadow.write(0, data(3 * BLOCK))
        shadow.discard(offset, length)
        shadow.verify()
        shadow.flush()
        shadow.write(offset + length - 5, data(100, 2))
        shadow.verify()


def test_everything_zeroed_then_reopened(stage: Stage) -> None:
    for step in ("zero", "discard"):
        with stage.open() as disk:
            shadow = ShadowDisk(disk, stage.content)
            shadow.write(100, data(BLOCK, 3))
            getattr(shadow, step)(0, len(shadow.content))
            shadow.verify()
        with stage.open(writable=False) as disk:
            assert all_zero(disk.read(0, disk.size))


@pytest.mark.parametrize("step", ["write", "zero", "discard"])
def test_fua_needs_no_flush(stage: Stage, step: str) -> None:
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(0, data(2 * BLOCK), fua=True)
        if step == "zero":
            shadow.zero(0, BLOCK, fua=True)
        elif step == "discard":
            shadow.discard(0, BLOCK, fua=True)
        with stage.open(writable=False) as other:  # through the files alone
            assert other.read(0, other.size) == shadow.content


def test_reopened_it_reads_the_same(stage: Stage) -> None:
    steps = stage.steps(seed=3)
    for _ in range(4):
        with stage.open() as disk:
            shadow = ShadowDisk(disk, stage.content)
            shadow.verify()
            for _ in range(5):
                steps.step(shadow)
    with stage.open(writable=False) as disk:
        ShadowDisk(disk, stage.content).verify()


def test_batches_agree_with_the_blocking_forms(shadow: ShadowDisk, stage: Stage) -> None:
    size = len(shadow.content)
    shadow.read_batch([(0, 512)])  # the page of the map comes at once, or with the write
    shadow.write(0, data(BLOCK + 5000))
    writes = [(0, data(512, 2)), (BLOCK - 100, data(300, 3)), (700, b"x"), (size - 1, b"end")]
    outcomes = shadow.disk.write_batch([(offset, memoryview(content)) for offset, content in writes])
    assert outcomes[:3] == [Outcome.DONE] * 3
    assert outcomes[3] is Outcome.LATER  # beyond the end
    for offset, content in writes[:3]:
        shadow.content[offset : offset + len(content)] = content
    steps = stage.steps(seed=5)
    for _ in range(10):
        shadow.read_batch([steps.extent(size) for _ in range(8)])
    assert shadow.read_batch([(10, 4096), (BLOCK - 10, 20)]) == [Outcome.DONE] * 2
    shadow.zero(0, BLOCK)
    layer = shadow.disk.layers[0].layer
    marks = layer.plan is not None and layer.plan.zero is not None and (layer.facts.block_size or 0) <= BLOCK
    expected = Outcome.ZERO if marks else Outcome.DONE
    assert shadow.read_batch([(0, BLOCK), (4096, 512)]) == [expected] * 2


def test_batches_leave_what_is_out_of_range(shadow: ShadowDisk) -> None:
    size = len(shadow.content)
    shadow.write(size - 512, data(512))
    for offset in (size - 511, size, size + 512, -512, 1 << 62):
        request = [(offset, memoryview(bytearray(512)))]
        assert shadow.disk.read_batch(request) == [Outcome.LATER]
        assert shadow.disk.write_batch(request) == [Outcome.LATER]
    shadow.verify()


def test_a_batch_write_is_flushed(stage: Stage) -> None:
    with stage.open() as disk:
        shadow = ShadowDisk(disk, stage.content)
        shadow.write(0, data(4096), fua=True)
        commits = disk.stats.commits
        assert shadow.write_batch([(512, data(512, 9))]) == [Outcome.DONE]
        disk.flush()
        assert disk.stats.commits == commits + 1


def test_extents_of_any_range(shadow: ShadowDisk, stage: Stage) -> None:
    steps = stage.steps(seed=11)
    size = len(shadow.content)
    check_extents(shadow.disk, shadow.content)
    for _ in range(8):
        steps.step(shadow)
        offset, length = steps.extent(size)
        check_extents(shadow.disk, shadow.content, offset, offset + length)
    check_extents(shadow.disk, shadow.content)
    assert list(shadow.disk.extents(5, 0)) == []
    assert list(shadow.disk.extents(size, 0)) == []


def test_ranges_outside_are_refused(shadow: ShadowDisk) -> None:
    size = len(shadow.content)
    disk = shadow.disk
    calls = (disk.read, disk.discard, disk.zero, disk.zero_is_fast, disk.extents, disk.prefetch)
    ranges = ((-1, 1), (0, -1), (size, 1), (size - 1, 2), (1, 1 << 62), (1 << 62, 0))
    for call, (offset, length) in itertools.product(calls, ranges):
        with pytest.raises(StorageError) as caught:
            call(offset, length)
        assert caught.value.kind is ErrorKind.RANGE
    with pytest.raises(StorageError, match="do not lie within"):
        disk.write(size - 1, b"xx")
    shadow.verify()


def test_lengths_of_zero_are_fine(shadow: ShadowDisk) -> None:
    size = len(shadow.content)
    for offset in (0, 5, size):
        assert shadow.disk.read(offset, 0) == b""
        shadow.write(offset, b"")
        shadow.zero(offset, 0)
        shadow.discard(offset, 0)
        shadow.disk.prefetch(offset, 0)
        assert shadow.disk.zero_is_fast(offset, 0)
    shadow.verify()


def test_a_closed_disk_refuses_everything(shadow: ShadowDisk) -> None:
    shadow.write(0, data(4096))
    shadow.disk.close()
    shadow.disk.close()
    for call in (lambda: shadow.disk.read(0, 1), lambda: shadow.disk.write(0, b"x"), shadow.disk.flush):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.kind is ErrorKind.STATE
    request = [(0, memoryview(bytearray(512)))]
    assert shadow.disk.read_batch(request) == [Outcome.LATER]
    assert shadow.disk.write_batch(request) == [Outcome.LATER]


def test_a_read_only_disk(stage: Stage) -> None:
    before = stage.paths[0].read_bytes()
    with stage.open(writable=False) as disk:
        ShadowDisk(disk, stage.content).verify()
        for call in (partial(disk.write, 0, b"x"), partial(disk.zero, 0, 1), partial(disk.discard, 0, 1)):
            with pytest.raises(StorageError) as caught:
                call()
            assert caught.value.kind is ErrorKind.READ_ONLY
        assert disk.write_batch([(0, memoryview(b"x"))]) == [Outcome.LATER]
        assert not disk.zero_is_fast(0, 512)
        disk.flush()
        assert not disk.commit_due()
    assert stage.paths[0].read_bytes() == before


def test_opening_for_writing_alone_changes_nothing(stage: Stage) -> None:
    before = stage.paths[0].read_bytes()
    with stage.open() as disk:
        disk.read(0, disk.size)
        disk.flush()
    assert stage.paths[0].read_bytes() == before


def test_statistics_count(shadow: ShadowDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivebay.engine.epoch._EPOCH_SECONDS", 600)  # on a busy machine, too
    disk = shadow.disk
    below = [extent for extent in disk.extents(0, BLOCK) if extent.depth is not None and extent.depth > 0]
    shadow.write(0, data(1000))
    disk.read(0, 300)
    shadow.zero(0, 10)
    shadow.discard(0, 10)
    disk.flush()
    disk.read_batch([(0, memoryview(bytearray(200)))])
    disk.write_batch([(0, memoryview(bytes(100)))])
    stats = disk.stats
    assert (stats.writes, stats.written_bytes) == (2, 1100)
    assert (stats.reads, stats.read_bytes) == (2, 500)
    assert (stats.zeros, stats.discards, stats.flushes, stats.commits) == (1, 1, 1, 1)
    assert stats.map_bytes > 0
    assert (stats.copy_ups > 0) == any(extent.state is ExtentState.DATA for extent in below)


def test_requests_left_for_later_count_once(stage: Stage) -> None:
    with stage.open() as disk:
        view = memoryview(bytearray(512))
        if disk.read_batch([(0, view)]) == [Outcome.LATER]:  # no page of the map yet
            disk.read_into(0, view)
        assert disk.write_batch([(0, view)]) == [Outcome.LATER]  # not armed yet
        disk.write(0, view)
        stats = disk.stats
        assert (stats.reads, stats.read_bytes) == (1, 512)
        assert (stats.writes, stats.written_bytes) == (1, 512)


def test_prefetch_changes_nothing(shadow: ShadowDisk) -> None:
    shadow.disk.prefetch(0, len(shadow.content))
    shadow.verify()


def test_zero_is_fast_where_nothing_is_copied(shadow: ShadowDisk) -> None:
    disk = shadow.disk
    for offset in range(0, len(shadow.content), BLOCK // 4):
        length = min(BLOCK // 4, len(shadow.content) - offset)
        fast = disk.zero_is_fast(offset, length)
        copies = disk.stats.copy_ups
        shadow.zero(offset, length)
        assert not fast or disk.stats.copy_ups == copies
    assert disk.zero_is_fast(0, len(shadow.content))
