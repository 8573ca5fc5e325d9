"""Single requests against an export: what is refused, what the disk is asked, what is answered."""

from __future__ import annotations

import struct

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.exports import Export
from drivebay.exports.nbd import commands
from drivebay.exports.nbd.constants import Error
from drivebay.exports.nbd.handshake import Session
from drivebay.exports.nbd.metacontext import CONTEXTS
from drivebay.exports.nbd.replies import EXTENDED, SIMPLE, STRUCTURED, SimpleReplies
from drivebay.exports.nbd.requests import Request
from drivebay.model import Extent, ExtentState
from support import nbd_client as nbd
from support.memory_disk import MemoryDisk

SIZE = 1 << 20


def session(
    disk: MemoryDisk | None = None, style: SimpleReplies = STRUCTURED, *, read_only: bool = False
) -> Session:
    return Session(Export(disk or MemoryDisk(SIZE), "disk", "", read_only), style, CONTEXTS)


def request(command: int, offset: int = 0, length: int = 0, flags: int = 0) -> Request:
    return Request(command, flags, 7, offset, length, length if command == nbd.WRITE else 0)


def run(where: Session, what: Request, payload: bytes = b"") -> bytes:
    assert commands.refusal(where, what) is None
    return b"".join(bytes(part) for part in commands.execute(where, what, payload))


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (request(8), Error.INVAL),
        (request(0xFFFF), Error.INVAL),
        (request(nbd.READ, 0, 1, nbd.NO_HOLE), Error.INVAL),
        (request(nbd.READ, 0, 1, 0x8000), Error.INVAL),
        (request(nbd.FLUSH, 0, 0, nbd.REQ_ONE), Error.INVAL),
        (request(nbd.READ, SIZE - 1, 2), Error.INVAL),
        (request(nbd.READ, (1 << 64) - 1, 2), Error.INVAL),
        (request(nbd.WRITE, SIZE - 1, 2), Error.NOSPC),
        (request(nbd.WRITE_ZEROES, SIZE, 1), Error.NOSPC),
        (request(nbd.TRIM, SIZE, 1), Error.INVAL),
        (request(nbd.CACHE, SIZE, 1), Error.INVAL),
        (request(nbd.BLOCK_STATUS, SIZE, 1), Error.INVAL),
        (request(nbd.BLOCK_STATUS, 0, 0), Error.INVAL),
    ],
)
def test_refusals(what: Request, error: Error) -> None:
    reason = commands.refusal(session(), what)
    assert reason is not None
    assert reason[0] is error


@pytest.mark.parametrize("command", [nbd.WRITE, nbd.TRIM, nbd.WRITE_ZEROES])
def test_a_read_only_export_refuses_changes(command: int) -> None:
    for where in (session(read_only=True), session(MemoryDisk(SIZE, writable=False))):
        reason = commands.refusal(where, request(command, 0, 1))
        assert reason is not None
        assert reason[0] is Error.PERM


def test_block_status_needs_a_context_and_df_needs_chunks() -> None:
    without = Session(Export(MemoryDisk(SIZE)), STRUCTURED, ())
    assert commands.refusal(without, request(nbd.BLOCK_STATUS, 0, 1)) is not None
    assert commands.refusal(session(style=SIMPLE), request(nbd.READ, 0, 1, nbd.DF)) is not None
    assert commands.refusal(session(), request(nbd.READ, 0, 1, nbd.DF)) is None


def test_reads_beyond_the_largest_payload_are_refused() -> None:
    big = MemoryDisk(64 << 20)
    too_long = request(nbd.READ, 0, (32 << 20) + 1)
    assert commands.refusal(session(big), too_long) == (
        Error.OVERFLOW,
        "a read returns at most 33554432 bytes",
    )
    assert (commands.refusal(session(big, SIMPLE), too_long) or [None])[0] is Error.INVAL


def test_fua_is_allowed_on_everything() -> None:
    for command in (nbd.READ, nbd.WRITE, nbd.FLUSH, nbd.TRIM, nbd.CACHE, nbd.WRITE_ZEROES):
        assert commands.refusal(session(), request(command, 0, 1, nbd.FUA)) is None


@pytest.mark.parametrize(
    ("what", "call"),
    [
        (request(nbd.WRITE, 0, 3, nbd.FUA), "write fua"),
        (request(nbd.WRITE, 0, 3), "write"),
        (request(nbd.FLUSH), "flush"),
        (request(nbd.TRIM, 0, 4096, nbd.FUA), "discard fua=True"),
        (request(nbd.CACHE, 0, 4096), "prefetch"),
        (request(nbd.WRITE_ZEROES, 0, 9), "zero unmap=True fua=False"),
        (request(nbd.WRITE_ZEROES, 0, 9, nbd.NO_HOLE | nbd.FUA), "zero unmap=False fua=True"),
        (request(nbd.WRITE_ZEROES, 0, 9, nbd.FAST_ZERO), "zero unmap=True fua=False"),
    ],
)
def test_what_the_disk_is_asked(what: Request, call: str) -> None:
    disk = MemoryDisk(SIZE)
    assert run(session(disk), what, b"abc") == STRUCTURED.acks([7], [0])
    assert disk.calls == [call]


def test_a_fast_zero_that_would_be_slow_fails_and_changes_nothing() -> None:
    disk = MemoryDisk(SIZE)
    disk.fast_zero = False
    reply = run(session(disk, SIMPLE), request(nbd.WRITE_ZEROES, 0, 9, nbd.FAST_ZERO))
    assert struct.unpack(">IIQ", reply)[1] == Error.NOTSUP
    assert disk.calls == []


def test_a_read_only_disk_is_not_flushed() -> None:
    disk = MemoryDisk(SIZE, writable=False)
    assert run(session(disk), request(nbd.FLUSH)) == STRUCTURED.acks([7], [0])
    assert disk.calls == []


def test_a_large_read_tells_its_holes() -> None:
    disk = MemoryDisk(SIZE)
    disk.write(65536, b"x" * 4096)
    reply = run(session(disk), request(nbd.READ, 0, 131072))
    head = struct.Struct(">IHHQI")
    assert reply == (
        head.pack(nbd.STRUCTURED, 0, 2, 7, 12)
        + struct.pack(">QI", 0, 65536)
        + head.pack(nbd.STRUCTURED, 0, 1, 7, 8 + 4096)
        + struct.pack(">Q", 65536)
        + b"x" * 4096
        + head.pack(nbd.STRUCTURED, 1, 2, 7, 12)
        + struct.pack(">QI", 69632, 61440)
    )


@pytest.mark.parametrize(("style", "flags", "header"), [(STRUCTURED, nbd.DF, 28), (SIMPLE, 0, 16)])
def test_a_read_that_must_not_be_split_comes_in_one_piece(
    style: SimpleReplies, flags: int, header: int
) -> None:
    disk = MemoryDisk(SIZE)
    disk.write(65536, b"x" * 4096)
    reply = run(session(disk, style), request(nbd.READ, 0, 131072, flags))
    assert reply[header:] == bytes(65536) + b"x" * 4096 + bytes(61440)


@pytest.mark.parametrize("style", [STRUCTURED, EXTENDED])
def test_an_empty_read_has_no_content_chunk(style: SimpleReplies) -> None:
    assert run(session(style=style), request(nbd.READ)) == style.acks([7], [0])


def test_block_status_merges_and_stops_after_one_when_asked() -> None:
    disk = MemoryDisk(SIZE)
    disk.write(4096, bytes(4096))
    disk.zero(8192, 4096)
    client = nbd.Reply()
    reply = run(session(disk), request(nbd.BLOCK_STATUS, 0, SIZE))
    found = {}
    while reply:
        length, context = struct.unpack_from(">II", reply, 16)
        found[context] = list(struct.iter_unpack(">II", reply[24 : 20 + length]))
        reply = reply[20 + length :]
    assert client.status == {}
    assert found[1] == [(4096, 3), (4096, 0), (SIZE - 8192, 3)]
    assert found[2] == [(4096, 0), (8192, 1), (SIZE - 12288, 0)]
    one = run(session(disk), request(nbd.BLOCK_STATUS, 512, SIZE - 512, nbd.REQ_ONE))
    assert len(one) == 2 * (20 + 4 + 8)
    assert struct.unpack_from(">II", one, 24) == (3584, 3)


def test_block_status_looks_at_a_bounded_range_and_number_of_extents() -> None:
    class Endless(MemoryDisk):
        def extents(self, offset: int = 0, length: int | None = None):
            assert length is not None
            assert length <= 64 << 30
            step = 512
            for number in range(length // step):
                state = ExtentState.DATA if number % 2 else ExtentState.ZERO
                yield Extent(offset + number * step, step, state, 0)

    disk = Endless(1 << 20)
    disk.size = 1 << 60
    reply = run(session(disk, EXTENDED), request(nbd.BLOCK_STATUS, 0, 1 << 59))
    assert struct.unpack_from(">II", reply, 32) == (1, 16384)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (ErrorKind.IO, Error.IO),
        (ErrorKind.NO_SPACE, Error.NOSPC),
        (ErrorKind.READ_ONLY, Error.PERM),
        (ErrorKind.RANGE, Error.INVAL),
        (ErrorKind.IN_USE, Error.IO),
        (ErrorKind.UNSUPPORTED, Error.INVAL),
        (ErrorKind.STATE, Error.IO),
        (ErrorKind.CORRUPT, Error.IO),
    ],
)
def test_storage_errors_become_numbers_of_the_protocol(kind: ErrorKind, error: Error) -> None:
    disk = MemoryDisk(SIZE)
    disk.failure = StorageError(kind, "the reason", path="/secret/path")
    reply = run(session(disk), request(nbd.READ, 0, 10))
    assert struct.unpack_from(">I", reply, 20)[0] == error
    assert reply.endswith(b"the reason")
    assert b"/secret" not in reply


def test_an_unexpected_failure_is_an_io_error(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryDisk):
        def flush(self) -> None:
            raise RuntimeError("bug")

    reply = run(session(Broken(SIZE), SIMPLE), request(nbd.FLUSH))
    assert struct.unpack(">IIQ", reply)[1] == Error.IO
    assert "bug" in caplog.text
