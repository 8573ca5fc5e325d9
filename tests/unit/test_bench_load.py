"""The request streams of the benchmark."""

from __future__ import annotations

from bench import wire
from bench.load import Load, random_load, sequential_load

MIB = 1 << 20


def request(load: Load, at: int) -> tuple[int, int, int, int, int, int]:
    start = at * load.request_size
    unpacked: tuple[int, int, int, int, int, int] = wire.REQUEST.unpack_from(load.requests, start)
    return unpacked


def test_random_reads_are_aligned_and_inside_the_disk() -> None:
    load = random_load(write=False, length=4096, depth=32, size=MIB)
    for at in range(0, load.count, 1001):
        magic, flags, kind, cookie, offset, length = request(load, at)
        assert (magic, flags, kind, length) == (wire.REQUEST_MAGIC, 0, wire.READ, 4096)
        assert offset % 4096 == 0
        assert offset + length <= MIB
        assert cookie == offset // wire.PAGE


def test_stream_repeats_its_beginning_for_runs_over_the_end() -> None:
    load = random_load(write=False, length=4096, depth=7, size=MIB)
    assert len(load.requests) == (load.count + 7) * load.request_size
    assert load.requests[load.count * load.request_size :] == load.requests[: 7 * load.request_size]


def test_writes_carry_the_numbers_of_their_pages() -> None:
    load = sequential_load(write=True, length=2 * wire.PAGE, depth=1, size=4 * wire.PAGE)
    assert load.count == 2
    assert load.request_size == 28 + 2 * wire.PAGE
    payload = load.requests[load.request_size + 28 : 2 * load.request_size]
    assert bytes(payload) == wire.pages(2, 2)
    assert request(load, 1)[2] == wire.WRITE


def test_sequential_reads_cover_the_disk_in_order() -> None:
    load = sequential_load(write=False, length=MIB, depth=2, size=4 * MIB)
    assert [request(load, at)[4] for at in range(load.count)] == [0, MIB, 2 * MIB, 3 * MIB]
