"""Requests from bytes and replies to bytes, and the plans of the tight paths."""

from __future__ import annotations

import struct
from itertools import accumulate
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivebay.exports.nbd import requests
from drivebay.exports.nbd.constants import ProtocolError
from drivebay.exports.nbd.plain import Slab, plan_reads, plan_writes
from drivebay.exports.nbd.replies import EXTENDED, SIMPLE, STRUCTURED, ChunkedReplies, SimpleReplies
from support import nbd_client as nbd


def compact(command: int, cookie: int, offset: int, length: int, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", nbd.REQUEST, flags, command, cookie, offset, length)


def extended(command: int, cookie: int, offset: int, length: int, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQQ", nbd.EXTENDED_REQUEST, flags, command, cookie, offset, length)


def test_decode_compact() -> None:
    data = memoryview(b"xx" + compact(nbd.WRITE, 1 << 63, (1 << 64) - 1, 7, nbd.FUA))
    assert requests.COMPACT.decode(data, 2) == (nbd.WRITE, nbd.FUA, 1 << 63, (1 << 64) - 1, 7, 7)
    assert requests.COMPACT.decode(memoryview(compact(nbd.READ, 5, 6, 7, nbd.PAYLOAD_LEN)), 0).payload == 0


def test_decode_extended() -> None:
    data = memoryview(extended(nbd.TRIM, 1, 2, 1 << 40))
    assert requests.EXTENDED.decode(data, 0) == (nbd.TRIM, 0, 1, 2, 1 << 40, 0)
    with_payload = memoryview(extended(nbd.BLOCK_STATUS, 1, 2, 12, nbd.PAYLOAD_LEN))
    assert requests.EXTENDED.decode(with_payload, 0).payload == 12


@pytest.mark.parametrize("form", [requests.COMPACT, requests.EXTENDED])
def test_a_wrong_magic_is_a_protocol_error(form: requests.RequestFormat) -> None:
    with pytest.raises(ProtocolError):
        form.decode(memoryview(b"\x25\x60\x95\x14" + bytes(28)), 0)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (SIMPLE, struct.pack(">IIQ", nbd.SIMPLE, 28, 9)),
        (STRUCTURED, struct.pack(">IHHQIIH", nbd.STRUCTURED, 1, 0x8001, 9, 10, 28, 4) + b"full"),
        (EXTENDED, struct.pack(">IHHQQQIH", nbd.EXTENDED, 1, 0x8001, 9, 77, 10, 28, 4) + b"full"),
    ],
)
def test_errors(style: SimpleReplies, expected: bytes) -> None:
    assert style.error(9, 77, 28, "full") == expected


def test_error_messages_are_cut_between_characters() -> None:
    reply = STRUCTURED.error(1, 0, 5, "ä" * 5000)
    length = struct.unpack_from(">H", reply, 24)[0]
    assert reply[26:].decode() == "ä" * (length // 2)
    assert length <= 4096


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (SIMPLE, struct.pack(">IIQIIQ", nbd.SIMPLE, 0, 1, nbd.SIMPLE, 0, 2)),
        (STRUCTURED, struct.pack(">IIQIIQ", nbd.SIMPLE, 0, 1, nbd.SIMPLE, 0, 2)),
        (EXTENDED, b"".join(struct.pack(">IHHQQQ", nbd.EXTENDED, 1, 0, n, n * 10, 0) for n in (1, 2))),
    ],
)
def test_acks(style: SimpleReplies, expected: bytes) -> None:
    assert style.acks([1, 2], [10, 20]) == expected


@pytest.mark.parametrize(
    ("style", "head"),
    [
        (STRUCTURED, struct.pack(">IHHQI", nbd.STRUCTURED, 0, 2, 3, 12)),
        (EXTENDED, struct.pack(">IHHQQQ", nbd.EXTENDED, 0, 2, 3, 100, 12)),
    ],
)
def test_holes(style: ChunkedReplies, head: bytes) -> None:
    assert style.hole(3, 100, 612, 4096, last=False) == head + struct.pack(">QI", 612, 4096)


def test_status_32_and_64() -> None:
    runs = [(4096, 3), (512, 0)]
    narrow = struct.pack(">IHHQI5I", nbd.STRUCTURED, 1, 5, 3, 20, 1, 4096, 3, 512, 0)
    wide = struct.pack(">IHHQQQII4Q", nbd.EXTENDED, 1, 6, 3, 0, 40, 1, 2, 4096, 3, 512, 0)
    assert STRUCTURED.status(3, 0, 1, runs, last=True) == narrow
    assert EXTENDED.status(3, 0, 1, runs, last=True) == wide


def header(style: SimpleReplies, n: int, length: int = 100) -> bytes:
    """What is expected in front of the data of read number n at offset 4096 * n."""
    if style is SIMPLE:
        return struct.pack(">IIQ", nbd.SIMPLE, 0, n)
    if style is STRUCTURED:
        return struct.pack(">IHHQIQ", nbd.STRUCTURED, 1, 1, n, length + 8, 4096 * n)
    return struct.pack(">IHHQQQQ", nbd.EXTENDED, 1, 1, n, 4096 * n, length + 8, 4096 * n)


@pytest.mark.parametrize("style", [SIMPLE, STRUCTURED, EXTENDED])
def test_plan_reads_lays_out_headers_and_room_for_data(style: SimpleReplies) -> None:
    pack = extended if style is EXTENDED else compact
    stream = b"#" + b"".join(pack(nbd.READ, n, 4096 * n, 100) for n in range(3)) + pack(nbd.FLUSH, 9, 0, 0)
    slab = Slab(4096)
    batch, end = plan_reads(style, memoryview(stream), 1, len(stream), slab)
    assert [offset for offset, _ in batch] == [0, 4096, 8192]
    for number, (_, view) in enumerate(batch):
        view[:] = bytes([number + 65]) * 100
    expected = b"".join(header(style, n) + bytes([n + 65]) * 100 for n in range(3))
    assert bytes(slab.view[:end]) == expected


@given(st.data())
@pytest.mark.parametrize("style", [SIMPLE, STRUCTURED, EXTENDED])
def test_a_slab_that_is_used_again_holds_the_replies_to_the_last_batch(
    style: SimpleReplies, data: st.DataObject
) -> None:
    pack = extended if style is EXTENDED else compact
    slab = Slab(2048)
    alike = st.integers(1, 40).flatmap(
        lambda count: st.sampled_from((64, 100, 101)).map(lambda n: [n] * count)
    )
    mixed = st.lists(st.sampled_from((64, 100, 101)), min_size=1, max_size=20)
    for lengths in data.draw(st.lists(alike | mixed, min_size=1, max_size=6)):
        first = data.draw(st.integers(0, 1 << 40))
        stream = b"".join(
            pack(nbd.READ, first + n, 4096 * (first + n), size) for n, size in enumerate(lengths)
        )
        batch, end = plan_reads(style, memoryview(stream), 0, len(stream), slab)
        assert len(batch) == slab_holds(style, lengths)
        for number, (offset, view) in enumerate(batch):
            assert offset == 4096 * (first + number)
            view[:] = bytes([number + 65]) * lengths[number]
        expected = [
            header(style, first + n, lengths[n]) + bytes([n + 65]) * lengths[n] for n in range(len(batch))
        ]
        assert bytes(slab.view[:end]) == b"".join(expected)


def slab_holds(style: SimpleReplies, lengths: list[int]) -> int:
    """How many replies of these lengths fit 2,048 bytes."""
    ends = accumulate(style.data_header + length for length in lengths)
    return sum(1 for end in ends if end <= 2048)


@pytest.mark.parametrize("reads", [1, 7, 20, 300])
@pytest.mark.parametrize("payload", [bytes(9000), compact(nbd.READ, 9, 0, 64) * 400], ids=["zeros", "reads"])
def test_payloads_behind_reads_are_not_taken_for_reads(reads: int, payload: bytes) -> None:
    stream = b"".join(compact(nbd.READ, n, 64 * n, 64) for n in range(reads))
    stream += compact(nbd.WRITE, 9, 0, len(payload)) + payload
    batch, end = plan_reads(SIMPLE, memoryview(stream), 0, len(stream), Slab(1 << 16))
    assert [offset for offset, _ in batch] == [64 * n for n in range(min(reads, 256))]
    assert end == len(batch) * (16 + 64)


def test_plan_reads_stops_at_what_is_not_plain_or_does_not_fit() -> None:
    plain = compact(nbd.READ, 1, 0, 100)
    slab = Slab(300)

    def planned(*messages: bytes) -> int:
        stream = memoryview(b"".join(messages))
        return len(plan_reads(STRUCTURED, stream, 0, len(stream), slab)[0])

    assert planned(plain, plain, plain) == 2
    assert planned(plain, plain[:-1]) == 1
    assert planned(plain, compact(nbd.READ, 1, 0, 100, nbd.DF), plain) == 1
    assert planned(plain, compact(nbd.READ, 1, 0, 0), plain) == 1
    assert planned(compact(nbd.READ, 1, 0, 0xFFFFFFFF)) == 0
    assert planned(bytes(28)) == 0


def test_plan_writes_takes_whole_plain_writes_only() -> None:
    one, two = (compact(nbd.WRITE, n, n * 512, 3) + b"abc" for n in (1, 2))
    half = compact(nbd.WRITE, 3, 0, 9) + b"half"

    def planned(*messages: bytes) -> SimpleNamespace:
        stream = memoryview(b"".join(messages))
        batch, cookies, end = plan_writes(requests.COMPACT, stream, 0, len(stream))
        found = [(offset, bytes(view)) for offset, view in batch]
        return SimpleNamespace(batch=found, cookies=cookies, end=end)

    both = planned(one, two, half)
    assert both.batch == [(512, b"abc"), (1024, b"abc")]
    assert both.cookies == [1, 2]
    assert both.end == len(one + two)
    assert planned(half).end == 0
    assert planned(one, compact(nbd.WRITE, 5, 0, 0, nbd.FUA)).cookies == [1]
    assert planned(one, compact(nbd.READ, 5, 0, 3)).cookies == [1]
