"""The benchmark's client: it counts what is right, and refuses what is not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import wire
from bench.client import Client
from bench.errors import BenchError
from bench.load import Load, random_load, sequential_load
from bench.peers import ECHO, Image, running
from bench.replies import Replies

MIB = 1 << 20
SIZE = 16 * MIB


@pytest.fixture(scope="module")
def echo() -> Iterator[Callable[[], Client]]:
    with running(ECHO, Image(Path("none"), "none", SIZE)) as process:
        yield process.connect


@pytest.mark.parametrize("depth", [1, 32])
@pytest.mark.parametrize("write", [False, True])
def test_random_requests_are_answered_and_counted(
    echo: Callable[[], Client], depth: int, write: bool
) -> None:
    with echo() as client:
        assert client.size == SIZE
        load = random_load(write=write, length=4096, depth=depth, size=SIZE)
        assert client.measure(load, 0.05) > 0
        assert client.measure(load, 0.05) > 0  # nothing of the first run is left in the connection


@pytest.mark.parametrize("write", [False, True])
def test_large_sequential_requests(echo: Callable[[], Client], write: bool) -> None:
    with echo() as client:
        assert client.measure(sequential_load(write=write, length=MIB, depth=4, size=SIZE), 0.05) > 0


def reply(load: Load, at: int, *, error: int = 0, page: int | None = None) -> bytes:
    cookie = load.requests[at * load.request_size + 8 : at * load.request_size + 16]
    number = int.from_bytes(cookie) if page is None else page
    head = struct.pack(">II", wire.SIMPLE_REPLY_MAGIC, error) + bytes(cookie)
    return head + (b"" if error else wire.pages(number, 1))


def replies(load: Load, data: bytes, *, timeout: float = 5.0) -> Iterator[int]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(timeout)
        sender = threading.Thread(target=theirs.sendall, args=(data,))
        sender.start()
        receiver = Replies(ours, load, structured=False)
        try:
            while True:
                yield receiver.take()
        finally:
            sender.join()


@pytest.fixture
def reads() -> Load:
    return random_load(write=False, length=4096, depth=8, size=SIZE)


def test_replies_in_pieces_are_put_together(reads: Load) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        receiver = Replies(ours, reads, structured=False)
        stream = b"".join(reply(reads, at) for at in range(3))
        done = 0
        for start in range(0, len(stream), 1000):
            theirs.sendall(stream[start : start + 1000])
            done += receiver.take()
        assert done == 3


@pytest.mark.parametrize("bad", [0, 2, 6])
@pytest.mark.parametrize("count", [3, 7])
def test_wrong_data_does_not_count(reads: Load, bad: int, count: int) -> None:
    stream = b"".join(
        reply(reads, at, page=SIZE if at == min(bad, count - 1) else None) for at in range(count)
    )
    with pytest.raises(BenchError, match="wrong data"):
        list(replies(reads, stream))


def test_an_error_among_replies_does_not_count(reads: Load) -> None:
    stream = reply(reads, 0) + reply(reads, 1, error=5) + reply(reads, 2)
    with pytest.raises(BenchError, match="67446698 00000005"):
        list(replies(reads, stream))


def test_a_short_error_that_is_waited_on_is_told(reads: Load) -> None:
    with pytest.raises(BenchError, match=r"no reply in time.*67446698 00000005"):
        list(replies(reads, reply(reads, 0, error=5), timeout=0.2))


def test_a_failed_write_does_not_count() -> None:
    load = random_load(write=True, length=4096, depth=8, size=SIZE)
    with pytest.raises(BenchError, match="67446698 0000001c"):
        list(replies(load, reply(load, 0, error=28)))


def greet(listener: socket.socket, words: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(words)


def test_a_server_of_another_kind_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        answer = threading.Thread(target=greet, args=(listener, b"HTTP/1.1 400 Bad Request"))
        answer.start()
        with pytest.raises(BenchError, match="no newstyle NBD server"):
            Client(tmp_path / "s")
        answer.join()
