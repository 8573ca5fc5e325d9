"""The allocator at the file's end: what it counts, what it refuses, where the tail goes."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from drivebay.blockmap import Allocator, BlockState, Directory, Entry, Field, Rule, Table, WritePlan
from drivebay.engine.eof_space import EofSpace
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError
from support.patience import processor_time

BLOCK = 4096
ROOT = 512
FIRST = 1024
ALWAYS = 1 << 60
NOTHING = Rule(0xFFFFFFFF, 0, BlockState.ABSENT)
TAIL = b"the end!" * 64


def space_of(entries: list[int], size: int, *, tail: bytes = b"", lead: int = 0) -> EofSpace:
    """The space of a table of sector numbers, in a file of ``size`` bytes that ends with the tail."""
    fd = os.memfd_create("image")
    os.truncate(fd, size)
    os.pwrite(fd, struct.pack(f"<{len(entries)}I", *entries), ROOT)
    os.pwrite(fd, tail, size)
    file = FileSource(fd, "/memory", writable=True)
    entry = Entry(4, "<", (Rule(0xFFFFFFFF, 0, BlockState.ABSENT),), 0xFFFFFFFF, 512, lead)
    table = Table(0, len(entries) * BLOCK, BLOCK, 0, ROOT, entry)
    plan = WritePlan(
        Allocator.BUMP_EOF, unit=BLOCK + lead, lead=lead, first=FIRST, tail=tail, counter=Field(4, 4, "<")
    )
    space = EofSpace(file, table, plan)
    space.recount()
    return space


def read(space: EofSpace, offset: int, length: int) -> bytes:
    return os.pread(space._source.fd, length, offset)


def test_new_blocks_follow_each_other_from_the_files_end() -> None:
    space = space_of([2, 0, 0], FIRST + BLOCK)
    assert [space.take(ALWAYS, 0) for _ in range(2)] == [FIRST + BLOCK, FIRST + 2 * BLOCK]
    ((counter,),) = space.reservations()
    assert counter.data == struct.pack("<I", (FIRST + 3 * BLOCK) // 512)
    space.reserved()
    assert space.reservations() == []


def test_an_end_within_a_sector_is_rounded_up() -> None:
    assert space_of([0], FIRST + 700).take(ALWAYS, 0) == FIRST + 1024


def test_the_tail_moves_and_leaves_zeros() -> None:
    space = space_of([0, 0], FIRST, tail=TAIL, lead=512)
    for number in range(2):
        offset = space.take(ALWAYS, 0)
        assert offset == FIRST + number * (BLOCK + 512) + 512
        assert read(space, offset - 512, BLOCK + 512) == bytes(BLOCK + 512)
        assert read(space, space._source.size - len(TAIL), 1000) == TAIL
        assert space._source.size >= offset + BLOCK + len(TAIL)


@pytest.mark.parametrize("tail", [b"", TAIL])
def test_the_file_is_longer_than_its_blocks_only_while_it_is_open(tail: bytes) -> None:
    space = space_of([0] * 100, FIRST, tail=tail)
    lengths = set()
    for _ in range(100):
        last = space.take(ALWAYS, 0)
        assert last is not None
        lengths.add(space._source.size)
        assert read(space, space._source.size - len(tail), 1000) == tail
        assert read(space, last, BLOCK) == bytes(BLOCK)
    assert len(lengths) < 15
    space.shorten()
    assert space._source.size == last + BLOCK + len(tail) == os.fstat(space._source.fd).st_size
    assert read(space, last + BLOCK, 1000) == tail
    again = space.take(ALWAYS, 0)
    assert again == last + BLOCK
    assert read(space, again, BLOCK) == bytes(BLOCK)
    space.shorten()
    assert space._source.size == again + BLOCK + len(tail)


def test_room_ahead_is_given_up_where_the_host_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of([0] * 9, FIRST, tail=TAIL)
    extend = space._source.extend

    def extend_a_little(size: int) -> None:
        if size > FIRST + 6 * BLOCK + len(TAIL):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        extend(size)

    monkeypatch.setattr(space._source, "extend", extend_a_little)
    assert [space.take(ALWAYS, 0) for _ in range(6)] == [FIRST + n * BLOCK for n in range(6)]
    with pytest.raises(OSError, match="too large"):
        space.take(ALWAYS, 0)
    monkeypatch.undo()
    assert space.take(ALWAYS, 0) == FIRST + 6 * BLOCK
    assert read(space, FIRST + 6 * BLOCK, BLOCK) == bytes(BLOCK)
    assert read(space, space._source.size - len(TAIL), 1000) == TAIL


def test_what_looks_almost_like_the_tail_is_not_overwritten() -> None:
    fd_size = FIRST + 512
    space = space_of([0], fd_size, tail=TAIL)
    os.pwrite(space._source.fd, b"X", fd_size)
    space.recount()
    assert space.take(ALWAYS, 0) == fd_size + len(TAIL)


def test_freed_space_comes_back_when_nobody_can_touch_it() -> None:
    space = space_of([2, 10], FIRST + 2 * BLOCK)
    os.pwrite(space._source.fd, b"old" * 100, FIRST)
    space.retire([2], newest_operation=7)
    assert space.take(7, 0) == FIRST + 2 * BLOCK
    assert space.take(8, 0) == FIRST
    assert read(space, FIRST, BLOCK) == bytes(BLOCK)
    space.give_back(FIRST)
    assert space.take(0, 0) == FIRST


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([2, 2], "another one points to"),
        ([2, 3], "another one points to"),
        ([1, 0], "own tables"),
        ([100, 0], "outside the file"),
    ],
)
def test_tables_that_a_write_would_damage_are_refused(entries: list[int], reason: str) -> None:
    with pytest.raises(StorageError, match=reason) as caught:
        space_of(entries, FIRST + 4 * BLOCK)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_a_format_that_can_count_no_further_is_full() -> None:
    space = space_of([0, 0], FIRST)
    space._next = (1 << 32) * 512
    with pytest.raises(StorageError, match="can't count further") as caught:
        space.take(ALWAYS, 0)
    assert caught.value.kind is ErrorKind.NO_SPACE


def test_a_directory_full_of_nothing_costs_next_to_nothing() -> None:
    """2^44 blocks, and not one leaf table."""
    with processor_time(10):
        space, _ = two_levels([], per_leaf=1 << 24, leaves=1 << 20)
        assert space.take(ALWAYS, 0) is not None


def test_one_leaf_table_for_many_entries_is_refused_at_once() -> None:
    refused = pytest.raises(StorageError, match="points to a place which another one points to")
    with processor_time(10), refused:
        two_levels([1] * 5000, per_leaf=1 << 16, leaves=1 << 20)


def test_more_blocks_than_the_file_has_room_for_are_refused() -> None:
    with pytest.raises(StorageError, match="points to a place which another one points to"):
        space_of([2] * 100, FIRST + BLOCK)


def test_a_leaf_table_in_the_header_is_refused() -> None:
    zero_means_the_header = Rule(0xFFFFFFFF, 0xFFFFFFFF, BlockState.ABSENT)
    with pytest.raises(StorageError, match="points to a place which another one points to"):
        two_levels([0], per_leaf=64, leaves=1, rule=zero_means_the_header)


def test_a_mirror_that_points_outside_of_the_file_is_refused() -> None:
    """Else the first commit would find it, and no commit would ever succeed."""
    with pytest.raises(StorageError, match="in a table that points outside the file"):
        two_levels([], per_leaf=512, leaves=8, mirror=[0, 1 << 20])


def two_levels(
    directory: list[int],
    *,
    per_leaf: int,
    leaves: int,
    mirror: list[int] | None = None,
    rule: Rule = NOTHING,
) -> tuple[EofSpace, FileSource]:
    """The space of a table of ``leaves`` leaf tables, whose directory begins with these sectors."""
    fd = os.memfd_create("image")
    os.pwrite(fd, struct.pack(f"<{len(directory)}I", *directory), ROOT)
    second = ROOT + leaves * 4
    os.pwrite(fd, struct.pack(f"<{len(mirror or [])}I", *(mirror or [])), second)
    os.ftruncate(fd, max(second + leaves * 4, 1 << 20))
    file = FileSource(fd, "/memory", writable=True)
    entry = Entry(4, "<", (rule,), 0xFFFFFFFF, 512)
    length = leaves * per_leaf * BLOCK
    table = Table(
        *(0, length, BLOCK, 0, ROOT, entry),
        directory=Directory(entry, per_leaf, leaves),
        mirrors=(second,) if mirror else (),
    )
    space = EofSpace(file, table, WritePlan(Allocator.BUMP_EOF, unit=BLOCK, leaf=per_leaf * 4))
    space.recount()
    return space, file
