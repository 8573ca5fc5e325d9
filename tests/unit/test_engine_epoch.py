"""Commit epochs: when they are due, who shares them, what poisons them."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from drivebay.blockmap import Allocator, Table, WritePlan
from drivebay.engine.disk import Disk
from drivebay.engine.leaves import EntryWriter
from drivebay.engine.metadata import MetadataFiles
from drivebay.engine.pagemap import PAGE_BYTES
from drivebay.engine.source import Buffer, FileSource
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.header import FREE
from drivebay.model import CacheMode
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk, read_layer
from support.faulty import Fault, Operation
from support.recording import Change, Log
from support.threads import Gate, start

BLOCK = 512 * KIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    image = tmp_path / "disk.vdi"
    make_image(image, ImageSpec(64 * MIB, BLOCK))
    return image


class GatedSource(FileSource):
    """Syncs stop at a gate."""

    gate: Gate | None = None
    syncs = 0

    def sync(self) -> None:
        if self.gate is not None:
            self.gate.stop_here()
        super().sync()
        self.syncs += 1


@pytest.fixture
def gated(path: Path) -> Iterator[tuple[Disk, GatedSource]]:
    sources: list[GatedSource] = []

    def make(fd: int, name: str, writable: bool) -> FileSource:
        sources.append(GatedSource(fd, name, writable=writable))
        return sources[-1]

    with open_disk([path], source=make) as disk:
        yield disk, sources[0]


def test_flushes_that_wait_share_one_commit(gated: tuple[Disk, GatedSource]) -> None:
    disk, source = gated
    disk.write(0, b"x" * 512, fua=True)
    disk.write(0, b"y" * 512)
    before = disk.stats.commits
    gate = source.gate = Gate()
    first = start(disk.flush)
    gate.wait_reached()
    disk.write(1024, b"z" * 512)
    others = [start(disk.flush) for _ in range(8)]
    for other in others:
        with pytest.raises(TimeoutError):
            other.result(0.01)
    syncs = source.syncs
    gate.set()
    for future in [first, *others]:
        future.result(60)
    assert disk.stats.commits == before + 2
    assert source.syncs == syncs + 2
    assert disk.stats.flushes == 10


def test_a_flush_that_began_too_early_does_not_count(gated: tuple[Disk, GatedSource]) -> None:
    """What is written during a commit is not covered by it, so a flush after it must commit again."""
    disk, source = gated
    disk.write(0, b"x" * 512, fua=True)
    disk.write(0, b"y" * 512)
    gate = source.gate = Gate()
    first = start(disk.flush)
    gate.wait_reached()
    disk.write(1024, b"z" * 512)
    second = start(disk.flush)
    gate.set()
    first.result(60)
    second.result(60)
    assert source.syncs == 5  # the marks, the first write's two, and one for each of the others


class RefusingSource(FileSource):
    """The next write of table entries stops at the gate, and then fails."""

    gate: Gate | None = None

    def write(self, data: Buffer, offset: int) -> None:
        gate = self.gate
        if gate is not None and MIB <= offset < 2 * MIB:
            self.gate = None
            gate.stop_here()
            raise OSError(errno.EIO, "refused")
        super().write(data, offset)


def test_what_changed_during_a_commit_that_failed_is_newer(path: Path) -> None:
    sources: list[RefusingSource] = []

    def make(fd: int, name: str, writable: bool) -> FileSource:
        sources.append(RefusingSource(fd, name, writable=writable))
        return sources[-1]

    disk = open_disk([path], source=make)
    disk.write(2 * BLOCK, b"kept", fua=True)
    disk.write(0, b"dropped")
    disk.discard(2 * BLOCK, BLOCK)
    gate = sources[0].gate = Gate()
    flush = start(disk.flush)
    gate.wait_reached()
    disk.discard(0, BLOCK)
    disk.write(2 * BLOCK, b"newer")
    gate.set()
    with pytest.raises(StorageError, match="refused"):
        flush.result(60)
    disk.flush()
    with open_disk([path], writable=False) as other:
        assert other.read(0, 7) == bytes(7)
        assert other.read(2 * BLOCK, 5) == b"newer"
    for block in (3, 4, 5):  # the two units that were dropped come back, each once
        disk.write(block * BLOCK, bytes([block]) * BLOCK)
    for block in (3, 4, 5):
        assert disk.read(block * BLOCK, BLOCK) == bytes([block]) * BLOCK
    disk.close()
    assert path.stat().st_size == 2 * MIB + 4 * BLOCK


def test_an_epoch_is_due_by_its_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivebay.engine.epoch._EPOCH_SECONDS", 600)  # on a busy machine, too
    with open_disk([path]) as disk:
        disk.write(0, b"x" * BLOCK)
        assert not disk.commit_due()
        for block in range(31):
            disk.write(block * BLOCK, b"x" * BLOCK)
            assert disk.stats.commits == 0
        disk.write(31 * BLOCK, b"x" * BLOCK)  # 16 MiB in new blocks
        assert disk.stats.commits == 1
        assert not disk.commit_due()
        assert Path(path).stat().st_size >= 16 * MIB


def test_an_epoch_is_due_by_the_map_pages_that_it_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivebay.engine.epoch._EPOCH_SECONDS", 600)  # on a busy machine, too
    large = tmp_path / "large.vdi"
    make_image(large, ImageSpec(1 << 40, MIB))
    with open_disk([large], map_budget=16 * PAGE_BYTES) as disk:
        for page in range(4):
            disk.write(page << 29, b"x")
            assert not disk.stats.commits
        disk.write(4 << 29, b"x")
        assert disk.stats.commits == 1
        assert not disk.commit_due()


def test_a_large_discard_does_not_keep_all_its_map_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivebay.engine.epoch._EPOCH_SECONDS", 600)  # on a busy machine, too
    large = tmp_path / "large.vdi"
    make_image(large, ImageSpec(1 << 36, MIB))
    with open_disk([large], map_budget=16 * PAGE_BYTES) as disk:
        for page in range(128):
            disk.write(page << 29, b"x")
        disk.flush()
        before = disk.stats.commits
        disk.discard(0, disk.size)
        assert disk.stats.commits >= before + 128 // 5
        assert disk.stats.map_bytes <= 17 * PAGE_BYTES
        assert disk.read(127 << 29, 1) == b"\0"


def test_an_epoch_is_due_by_its_age(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with open_disk([path]) as disk:
        disk.write(0, b"x")
        now += 0.9
        disk.write(BLOCK, b"x")
        assert not disk.commit_due()
        now += 0.2
        assert disk.commit_due()
        disk.flush()
        assert not disk.commit_due()
        disk.write(0, b"in place")
        now += 10
        assert not disk.commit_due()  # what lies in place needs no commit
        disk.zero(BLOCK, BLOCK)
        now += 1
        assert disk.commit_due()
        disk.write(2 * BLOCK, b"x")
        assert not disk.commit_due()
    with open_disk([path], writable=False) as disk:
        assert disk.read(0, 8) == b"in place"


def test_a_failed_sync_poisons(path: Path) -> None:
    with open_disk([path]) as disk:
        disk.write(0, b"safe" * 1000)
    fault = Fault(Operation.SYNC, 2, errno.EIO)
    disk = open_disk([path], source=fault.source)
    disk.write(0, b"lost" * 1000)
    disk.write(BLOCK, b"new")
    with pytest.raises(StorageError, match="durable") as caught:
        disk.flush()
    assert caught.value.kind is ErrorKind.IO
    for call in (
        disk.flush,
        lambda: disk.write(0, b"x"),
        lambda: disk.zero(0, 1),
        lambda: disk.discard(0, 1),
    ):
        with pytest.raises(StorageError, match="open the disk again"):
            call()
    assert disk.write_batch([(0, memoryview(b"x"))])[0].name == "LATER"
    assert disk.read(0, 4000) == b"lost" * 1000
    assert disk.read(BLOCK, 3) == b"new"
    assert not disk.commit_due()
    with pytest.raises(StorageError, match="durable"):
        disk.close()
    with open_disk([path]) as disk:
        disk.write(0, b"healed", fua=True)
        assert disk.read(0, 6) == b"healed"


def test_a_poisoned_disk_can_refuse_forever(path: Path) -> None:
    fault = Fault(Operation.SYNC, 1, errno.EIO, lasting=True)
    disk = open_disk([path], source=fault.source)
    depths = []
    for _ in range(50):
        with pytest.raises(StorageError) as caught:
            disk.write(0, b"x")
        depths.append(len(caught.traceback))
    assert depths[-1] <= depths[1]
    with pytest.raises(StorageError):
        disk.close()


def test_unsafe_never_syncs_and_keeps_what_was_flushed(path: Path) -> None:
    log = Log()
    with open_disk([path], cache=CacheMode.UNSAFE, source=log.source) as disk:
        disk.write(0, b"x" * 512, fua=True)
        with open_disk([path], writable=False) as other:  # as after a killed process
            assert other.read(0, 512) == b"x" * 512
    assert not [event for event in log.events if event.change is Change.SYNC]


def test_writethrough_flushes_every_write(path: Path) -> None:
    with open_disk([path], cache=CacheMode.WRITETHROUGH) as disk:
        for number in range(3):
            disk.write(number * 1000, b"x" * 512)
            with open_disk([path], writable=False) as other:
                assert other.read(number * 1000, 512) == b"x" * 512
        assert disk.write_batch([(0, memoryview(b"x"))])[0].name == "LATER"


def test_the_modification_mark_changes_before_the_first_write_and_with_each_commit(path: Path) -> None:
    seen = [read_layer(path).facts.modification_uuid]
    with open_disk([path]) as disk:
        disk.read(0, 512)
        disk.flush()
        assert read_layer(path).facts.modification_uuid == seen[0]
        for step in (partial(disk.write, 0, b"x"), disk.flush):
            step()
            seen.append(read_layer(path).facts.modification_uuid)
        disk.flush()
        assert read_layer(path).facts.modification_uuid == seen[-1]
    assert len(set(seen)) == 3
    assert read_layer(path).facts.uuid.int


def test_entries_near_each_other_are_written_together(path: Path) -> None:
    table = read_layer(path).segments[0]
    assert isinstance(table, Table)
    file = FileSource(os.open(path, os.O_RDONLY), str(path), writable=False)
    files = MetadataFiles([file], durable=True)
    writer = EntryWriter(table, table.root, files, None, WritePlan(Allocator.BUMP_COUNTER))
    changes, above = writer.changes({5: 50, 1: 10, 2: 20, 7: 70, 6: 60, 100: 80})
    between = [FREE] * (99 - 7)
    assert changes == [
        (0, table.root + 4, struct.pack("<100I", 10, 20, FREE, FREE, 50, 60, 70, *between, 80))
    ]
    assert above == []
    assert writer.changes({}) == ([], [])
    apart, _ = writer.changes({0: 1, 127: 3, 500: 2, 501: 4})
    assert [(change.offset - table.root) // 4 for change in apart] == [0, 500]
    many, _ = writer.changes(dict.fromkeys(range(40_000), 1))
    assert [(change.offset - table.root) // 4 for change in many] == [0, 16384, 32768]
    assert sum(len(change.data) for change in many) == 160_000
    file.close()
