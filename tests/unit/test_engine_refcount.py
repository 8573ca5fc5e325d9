"""The REFCOUNT allocator by itself: what it hands out, how that reaches the file, what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from drivebay.blockmap import Layer, Table
from drivebay.engine.change import Change
from drivebay.engine.refcount import RefcountSpace
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import qcow2
from drivebay.formats.qcow2.options import Preallocation
from support.images import ImageSpec, make_image
from support.memory_files import MemoryFiles
from support.qcow2_images import (
    BLOCK,
    CLUSTER,
    COMPRESSED,
    COPIED,
    DATA,
    L1,
    L2,
    TABLE,
    own,
    snapshot_entry,
)
from support.qcow2_images import make_image as image_bytes

MIB = 1 << 20
FIRST = DATA // CLUSTER
END = DATA + CLUSTER  # of a file with one cluster of data


class Image:
    """An image file with its allocator; `publish` does what a commit does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = FileSource(os.open(path, os.O_RDWR), str(path), writable=True)
        layer = self.layer()
        (table,) = layer.segments
        assert isinstance(table, Table)
        assert layer.plan is not None
        self.table, self.plan = table, layer.plan
        self.space = RefcountSpace((self.source,), (table,), layer.plan)

    def layer(self) -> Layer:
        return qcow2.FORMAT.open(MemoryFiles(self.path.read_bytes(), str(self.path)))

    def codes(self) -> dict[str, str]:
        """What check finds: codes and messages."""
        assert qcow2.FORMAT.check is not None
        files = MemoryFiles(self.path.read_bytes(), str(self.path))
        return {found.code: found.message for found in qcow2.FORMAT.check(files, self.layer())}

    def write(self, stages: Sequence[Sequence[Change]]) -> None:
        for stage in stages:
            for change in stage:
                assert change.source == 0
                self.source.write(change.data, change.offset)

    def publish(self) -> None:
        self.write(self.space.reservations())
        self.space.reserved()

    def enter(self, block: int, raw: int) -> None:
        """Put an entry of the first leaf table into the file."""
        leaf = int.from_bytes(os.pread(self.source.fd, 8, self.table.root), "big") & ~COPIED
        self.source.write(raw.to_bytes(8, "big"), leaf + block * self.table.entry.step)

    def taken(self, count: int, oldest: int = 1) -> list[int]:
        offsets = [self.space.take(oldest, 0) for _ in range(count)]
        assert None not in offsets
        return [offset for offset in offsets if offset is not None]


Make = Callable[..., Image]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes an image of the parts of `support.qcow2_images`, or of create options; recounted."""
    opened: list[Image] = []

    def build(options: dict[str, Any] | None = None, size: int = 4 * MIB, **parts: Any) -> Image:
        path = tmp_path / f"{len(opened)}.qcow2"
        if options is None:
            path.write_bytes(image_bytes(**parts))
        else:
            block = options.pop("block_size", None)
            make_image(path, ImageSpec(size, block, None, "qcow2", tuple(options.items())))
        opened.append(Image(path))
        return opened[-1]

    yield build
    for image in opened:
        image.source.close()


@pytest.fixture
def ready(make: Make) -> Make:
    """As ``make``, and ready for writing."""

    def build(*args: Any, **parts: Any) -> Image:
        image = make(*args, **parts)
        image.space.recount()
        return image

    return build


def leaks(image: Image) -> int:
    """How many clusters are counted but not used; nothing else may be wrong."""
    codes = image.codes()
    assert set(codes) <= {"leak"}
    return int(codes["leak"].split(": ")[1].split(";")[0]) if codes else 0


def test_free_clusters_are_handed_out_in_their_order(ready: Make) -> None:
    image = ready(entries={0: own(0), 1: own(2)})
    assert image.taken(3) == [DATA + CLUSTER, DATA + 3 * CLUSTER, DATA + 4 * CLUSTER]
    assert image.source.size == DATA + 5 * CLUSTER


def test_what_was_used_before_reads_as_zeros(ready: Make) -> None:
    image = ready()
    (offset,) = image.taken(1)
    assert os.pread(image.source.fd, CLUSTER, offset) == bytes(CLUSTER)


def test_counts_are_durable_before_anything_refers_to_them(ready: Make) -> None:
    image = ready()
    offsets = image.taken(3)
    assert leaks(image) == 0, "nothing is written before a commit"
    image.publish()
    assert leaks(image) == 3
    for block, offset in enumerate(offsets):
        image.enter(block, offset | COPIED)
    assert leaks(image) == 0
    assert image.space.reservations() == []


def test_a_leaf_table_is_a_cluster_like_others(ready: Make) -> None:
    image = ready()
    assert image.space.take_leaf() == DATA
    assert image.taken(1) == [DATA + CLUSTER]


def test_what_was_never_entered_comes_back_at_once(ready: Make) -> None:
    image = ready()
    first, second = image.taken(2)
    os.pwrite(image.source.fd, b"x" * CLUSTER, first)
    image.space.give_back(first)
    assert image.taken(2) == [first, second + CLUSTER]
    assert os.pread(image.source.fd, CLUSTER, first) == bytes(CLUSTER)


def test_what_is_gone_from_the_tables_is_counted_down_in_the_file(ready: Make) -> None:
    image = ready(entries={0: own(0), 1: own(1) | 1})
    image.enter(0, 1)
    image.enter(1, 1)
    assert leaks(image) == 2
    image.space.retire([own(0), own(1) | 1], 5)
    assert leaks(image) == 0


def test_operations_under_way_hold_what_was_retired(ready: Make) -> None:
    image = ready(entries={0: own(0)})
    image.space.retire([own(0)], 5)
    assert DATA not in image.taken(4, oldest=5)
    assert image.taken(1, oldest=6) == [DATA]


def test_entries_without_bytes_retire_nothing(ready: Make) -> None:
    image = ready(entries={0: own(0)})
    image.space.retire([0, 1, COPIED], 5)
    assert leaks(image) == 0


def test_discarded_bytes_go_back_to_the_host_but_not_those_that_may_be_read(ready: Make) -> None:
    image = ready(entries={0: own(0), 1: own(1)})
    image.space.retire([own(0)], 5)
    assert os.pread(image.source.fd, CLUSTER, DATA) == bytes(CLUSTER)
    image = ready(entries={0: own(0), 1: DATA + CLUSTER})  # an entry that could say that it owns, and doesn't
    image.space.retire([DATA + CLUSTER], 5)
    assert os.pread(image.source.fd, CLUSTER, DATA + CLUSTER) == b"\x02" * CLUSTER


def test_a_compressed_block_gives_back_every_cluster_it_touched(ready: Make) -> None:
    entry = COMPRESSED | 8 << 58 | DATA + 100
    image = ready(entries={0: entry, 1: entry}, counts={FIRST: 2, FIRST + 1: 2})
    image.enter(1, 0)
    image.space.retire([entry], 5)
    assert leaks(image) == 0
    assert image.taken(2, oldest=6) == [DATA + 2 * CLUSTER, DATA + 3 * CLUSTER]
    image.enter(0, 0)
    image.space.retire([entry], 6)
    assert image.taken(2, oldest=7) == [DATA, DATA + CLUSTER]


def test_shared_clusters_and_tables_stay_with_the_snapshot(ready: Make) -> None:
    shared = {"l1": {0: L2}, "snapshot_entries": [snapshot_entry(l1_offset=DATA + CLUSTER)]}
    image = ready(entries={0: DATA}, counts={FIRST: 2, 4: 2, FIRST + 1: 1}, **shared)
    image.space.retire([DATA], 1)
    image.space.retire_leaf(L2)
    counts = os.pread(image.source.fd, 2 * (FIRST + 1), BLOCK)
    assert (counts[8:10], counts[-2:]) == (b"\0\1", b"\0\1")
    assert L2 not in image.taken(6, oldest=9)
    assert os.pread(image.source.fd, CLUSTER, DATA) == b"\x01" * CLUSTER


def test_a_leaf_table_that_nobody_uses_rests(ready: Make) -> None:
    image = ready(l1={0: L2})
    image.space.retire_leaf(L2)
    assert os.pread(image.source.fd, 2, BLOCK + 8) == b"\0\0"
    assert L2 not in image.taken(10, oldest=99)


WIDTHS = [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("bits", WIDTHS)
def test_tables_of_counts_grow_and_every_crash_leaves_leaks_only(ready: Make, bits: int) -> None:
    image = ready({"block_size": 512, "refcount_bits": bits}, 16 * MIB)
    per_block = 512 * 8 // bits
    count = min(64 * per_block + 100, 9000) if bits > 8 else per_block + 70
    root = image.plan.refcounts.root if image.plan.refcounts else 0
    offsets = image.taken(count)
    assert len(set(offsets)) == count
    stages = image.space.reservations()
    assert len(stages) == 2
    for stage in stages:
        assert leaks(image) <= count, "whatever stage is the last"
        image.write([stage])
    image.space.reserved()
    assert leaks(image) == count
    counts = image.layer().plan.refcounts  # type: ignore[union-attr]
    assert counts is not None
    assert (counts.root != root) is (bits >= 32)
    again = Image(image.path)
    again.space.recount()
    assert not {again.space.take(1, 0)} & set(offsets)
    again.source.close()


def test_the_old_table_is_used_again(ready: Make) -> None:
    image = ready({"block_size": 512, "refcount_bits": 64}, 16 * MIB)
    image.taken(64 * 64)
    image.publish()
    assert image.taken(1) == [512], "where the first table was"
    assert os.pread(image.source.fd, 512, 512) == bytes(512)


def test_reservations_that_failed_are_made_again(ready: Make) -> None:
    image = ready({"block_size": 512, "refcount_bits": 64}, 16 * MIB)
    image.taken(100)
    image.space.reservations()  # these never reach the file
    image.taken(64 * 64)
    image.publish()
    assert leaks(image) == 100 + 64 * 64


def test_preallocated_clusters_are_left_alone(ready: Make) -> None:
    image = ready({"preallocation": Preallocation.METADATA, "block_size": 4096}, MIB)
    end = image.source.size
    assert image.taken(1)[0] >= end


UNSAFE: list[tuple[dict[str, Any], str]] = [
    ({"entries": {0: own(0)}, "counts": {FIRST: 0}}, "used by 1 entries, but its reference count is 0"),
    ({"entries": {0: own(0)}, "counts": {FIRST: 2}}, "reference count is 2"),
    ({"entries": {0: own(0), 1: own(0)}}, "used by 2 entries|reference count is 2"),
    ({"entries": {0: DATA, 1: DATA}, "counts": {FIRST: 1}}, "used by 2 entries"),
    ({"entries": {0: L2 | COPIED}, "counts": {4: 1}}, "used by 2 entries"),
    ({"entries": {0: own(50)}}, "points outside"),
    ({"entries": {0: COMPRESSED | 1 << 40}}, "points outside"),
    ({"entries": {0: own(0) + 512}}, "where it must not"),
    ({"entries": {0: own(0) | 1}, "version": 2, "length": 72}, "where it must not"),
    ({"l1": {0: L2 + 512}}, "directory points where it must not"),
    ({"l1": {0: 1 << 40}}, "directory points where it must not"),
    ({"l1": {1: L2 | COPIED}, "l1_size": 2}, "two entries of its directory"),
    ({"counts": {0: 0}}, "reference count is 0"),
    ({"counts": {L1 // CLUSTER: 2}}, "reference count is 2"),
    ({"counts": {TABLE // CLUSTER: 0}}, "reference count is 0"),
]


@pytest.mark.parametrize(("parts", "message"), UNSAFE, ids=[str(n) for n in range(len(UNSAFE))])
def test_what_a_write_could_destroy_is_not_written(make: Make, parts: dict[str, Any], message: str) -> None:
    image = make(**parts)
    before = image.path.read_bytes()
    with pytest.raises(StorageError, match=message) as caught:
        image.space.recount()
    assert caught.value.kind is ErrorKind.CORRUPT
    assert "drivebay repair" in caught.value.message
    assert image.path.read_bytes() == before


@pytest.mark.parametrize("entry", [1 << 40, BLOCK + 512])
def test_a_table_of_counts_that_points_nowhere(make: Make, entry: int) -> None:
    image = make()
    os.pwrite(image.source.fd, entry.to_bytes(8, "big"), TABLE)
    with pytest.raises(StorageError, match="refcount table points"):
        image.space.recount()


def test_two_entries_of_the_table_of_counts_with_one_block(make: Make) -> None:
    image = make()
    os.pwrite(image.source.fd, BLOCK.to_bytes(8, "big") * 2, TABLE)
    with pytest.raises(StorageError, match="twice to one block"):
        image.space.recount()


def test_a_missing_block_of_counts_means_that_nothing_is_counted(make: Make) -> None:
    image = make()
    os.pwrite(image.source.fd, bytes(8), TABLE)
    with pytest.raises(StorageError, match="reference count is 0"):
        image.space.recount()


def test_a_host_without_room_takes_nothing(ready: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    image = ready()
    (first,) = image.taken(1)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(image.source, "zero_range", full)
        with pytest.raises(OSError, match="No space"):
            image.space.take(1, 0)
    assert image.taken(1) == [first + CLUSTER]


def test_counts_that_could_not_be_written_are_written_later(
    ready: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ready(entries={0: own(0)})
    image.enter(0, 0)

    def failing(*_args: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(image.source, "write", failing)
        image.space.retire([own(0)], 1)
    assert leaks(image) == 1
    image.publish()
    assert leaks(image) == 0


def test_a_sparse_file_with_more_clusters_than_can_be_counted(make: Make) -> None:
    image = make()
    image.source.extend(1 << 43)
    with pytest.raises(StorageError, match="larger clusters") as caught:
        image.space.recount()
    assert caught.value.kind is ErrorKind.UNSUPPORTED


def test_a_large_sparse_file_costs_little(ready: Make) -> None:
    image = ready()
    image.source.extend(1 << 36)
    image.space.recount()
    assert image.taken(1) == [DATA]


@pytest.mark.parametrize(
    "raw",
    [1 | END, COMPRESSED | 15 << 58 | (END - 512)],
    ids=["zeros", "compressed"],
)
def test_what_an_entry_claims_behind_the_files_end_is_not_freed(ready: Make, raw: int) -> None:
    """Nobody has verified that it is counted: it may be a new block's by now."""
    image = ready(entries={0: raw}, counts={FIRST: 1, END // CLUSTER: 0}, clusters=1)
    (new,) = image.taken(1)
    assert new == END
    image.space.retire([raw], newest_operation=0)
    assert END not in image.taken(3)
