"""Clients that break the rules cost only their own connection, while another one goes on."""

from __future__ import annotations

import itertools
import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from drivebay.engine.batch import Outcome
from drivebay.exports import NbdServer
from support import nbd_client as nbd
from support.memory_disk import MemoryDisk
from support.nbd_client import Client
from support.nbd_server import SIZE, serving
from support.patience import PATIENCE, until


@contextmanager
def good_client(path: str) -> Iterator[None]:
    """Reads and checks all the time; fails if it is ever wrong, or makes no progress."""
    stop = threading.Event()
    rounds, failures = [], []

    def work() -> None:
        try:
            with Client(path) as client:
                while not stop.is_set():
                    client.write(0, b"good" * 1024)
                    if client.read(0, 4096) != b"good" * 1024:
                        failures.append("wrong data")
                    rounds.append(time.monotonic())
        except Exception as error:
            failures.append(repr(error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        time.sleep(0.05)
        stop.set()
        thread.join()
    assert failures == []
    assert len(rounds) > 3
    assert max(b - a for a, b in itertools.pairwise(rounds)) < PATIENCE


def closed(sock: socket.socket) -> bool:
    """Whether the server closes the connection, whatever it sends before."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


def header(command: int, offset: int, length: int, *, magic: int = nbd.REQUEST, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", magic, flags, command, 1, offset, length)


def bad_request_magic(client: Client) -> None:
    client.sock.sendall(header(nbd.READ, 0, 512, magic=0x12345678))
    assert closed(client.sock)


def bad_magic_behind_good_requests(client: Client) -> None:
    client.sock.sendall(header(nbd.READ, 0, 512) * 3 + bytes(28))
    assert closed(client.sock)


def payload_too_large(client: Client) -> None:
    client.sock.sendall(header(nbd.WRITE, 0, (32 << 20) + 1))
    reply = client.receive(26)
    assert struct.unpack_from(">I", reply, 20)[0] == 22
    assert closed(client.sock)


def absurd_lengths(client: Client) -> None:
    assert client.call(nbd.READ, 0, 0xFFFFFFFF).error == 22
    assert client.call(nbd.TRIM, 0, 0xFFFFFFFF).error == 22
    assert client.call(nbd.CACHE, 4096, 0xFFFFFFFF).error == 22


def overflowing_offsets(client: Client) -> None:
    for command in (nbd.READ, nbd.TRIM, nbd.WRITE_ZEROES, nbd.CACHE):
        assert client.call(command, (1 << 64) - 1, 4096).error in (22, 28)
    assert client.call(nbd.WRITE, (1 << 64) - 2048, 4096, bytes(4096)).error == 28


def half_header(client: Client) -> None:
    client.sock.sendall(header(nbd.READ, 0, 512)[:20])


def vanish_in_a_small_write(client: Client) -> None:
    client.sock.sendall(header(nbd.WRITE, 8192, 4096) + b"evil" * 512)


def vanish_in_a_large_write(client: Client) -> None:
    client.sock.sendall(header(nbd.WRITE, 8192, 8 << 20) + b"evil" * (1 << 18))


def vanish_with_replies_under_way(client: Client) -> None:
    for _ in range(50):
        client.send(nbd.READ, 0, 1 << 20)


def flood_without_reading(client: Client) -> None:
    with pytest.raises(TimeoutError):
        _send_until_stuck(client, header(nbd.READ, 0, 1 << 20) * 1000, 0.5)


def flood_of_flushes(client: Client) -> None:
    with pytest.raises(TimeoutError):
        _send_until_stuck(client, header(nbd.FLUSH, 0, 0) * 1000, 0.5)


def _send_until_stuck(client: Client, data: bytes, seconds: float) -> None:
    client.sock.settimeout(seconds)
    while True:
        client.sock.sendall(data)


def flood_of_unknown_commands(client: Client) -> None:
    """It takes the replies, so that nothing but fairness makes it wait."""
    taking = threading.Thread(target=closed, args=(client.sock,))
    taking.start()
    for _ in range(3):
        client.sock.sendall(header(77, 0, 512) * 30_000)
    client.sock.shutdown(socket.SHUT_WR)
    taking.join()


def every_other_command(client: Client) -> None:
    for command in range(8, 300):
        assert client.call(command, 0, 512).error == 22


@pytest.mark.parametrize(
    "attack",
    [
        bad_request_magic,
        bad_magic_behind_good_requests,
        payload_too_large,
        absurd_lengths,
        overflowing_offsets,
        half_header,
        vanish_in_a_small_write,
        vanish_in_a_large_write,
        vanish_with_replies_under_way,
        flood_without_reading,
        flood_of_flushes,
        flood_of_unknown_commands,
        every_other_command,
    ],
)
def test_hostile_requests(attack: Callable[[Client], None]) -> None:
    disk = MemoryDisk(SIZE)
    with serving(disk) as (path, server), good_client(path):
        for _ in range(2):
            with Client(path) as client:
                attack(client)
        _only_the_good_one_is_left(server)
    assert b"evil" not in disk.data


def _only_the_good_one_is_left(server: NbdServer) -> None:
    until(lambda: server.stats.connections == 1)


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.0\r\n\r\n" * 3,
        b"\xff" * 64,
        struct.pack(">I", 3) + b"\0" * 16,
        struct.pack(">IQII", 3, nbd.OPTION_MAGIC, nbd.GO, 0xFFFFFFFF),
        struct.pack(">I", 3) + struct.pack(">QII", nbd.OPTION_MAGIC, nbd.LIST, 0) * 100_000,
    ],
)
def test_hostile_handshakes(greeting: bytes) -> None:
    with serving(MemoryDisk(SIZE)) as (path, _), good_client(path), nbd.connect(path) as sock:
        try:
            sock.sendall(greeting)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert closed(sock)


def test_a_handshake_that_never_ends_is_ended() -> None:
    with (
        serving(MemoryDisk(SIZE), handshake_timeout=0.3) as (path, _),
        good_client(path),
        nbd.connect(path) as silent,
        nbd.connect(path) as slow,
    ):
        begin = time.monotonic()
        slow.sendall(struct.pack(">I", 3))
        assert closed(silent)
        assert closed(slow)
        assert 0.2 < time.monotonic() - begin < PATIENCE


def test_a_client_that_reads_nothing_is_bounded_in_memory() -> None:
    disk = MemoryDisk(SIZE)
    disk.write(0, b"x" * SIZE)
    with serving(disk) as (path, server), Client(path) as client:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(TimeoutError):
            _send_until_stuck(client, header(nbd.READ, 0, 8 << 20) * 100, 1)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 200 << 10  # KiB: the limit is 64 MiB in the workers
        assert server.stats.requests < 100


class _Recorded(MemoryDisk):
    """Knows how many requests came before the first one to ``watched``, and can stop the loop in a write."""

    def __init__(self, watched: int) -> None:
        super().__init__(SIZE)
        self.watched = watched
        self.before = 0
        self.came = self.stopped = False
        self.go_on = threading.Event()

    def read_batch(self, requests: Sequence[tuple[int, memoryview]]) -> list[Outcome]:
        self._look(requests)
        return super().read_batch(requests)

    def write_batch(self, requests: Sequence[tuple[int, memoryview]]) -> list[Outcome]:
        self._look(requests)
        if not self.stopped:
            self.stopped = True
            self.go_on.wait()
        return super().write_batch(requests)

    def _look(self, requests: Sequence[tuple[int, memoryview]]) -> None:
        self.came = self.came or any(offset == self.watched for offset, _ in requests)
        self.before += 0 if self.came else len(requests)


@pytest.mark.parametrize(
    ("flood", "limit"),
    [
        ((header(nbd.WRITE, 0, 1) + b"x" + header(nbd.READ, 0, 1)) * 1500, 300),
        ((header(nbd.WRITE, 0, 1) + b"x") * 3000 + header(nbd.READ, 0, 1) * 3000, 5000),
    ],
)
def test_plain_requests_that_flood_let_others_in_between(flood: bytes, limit: int) -> None:
    disk = _Recorded(watched=8192)
    with serving(disk) as (path, _), Client(path) as client, Client(path) as good:
        client.sock.sendall(header(nbd.WRITE, 0, 1) + b"x")
        until(lambda: disk.stopped)
        client.sock.sendall(flood)  # which fits into the socket: the loop takes it all at once
        good.send(nbd.READ, disk.watched, 512)
        disk.go_on.set()
        taking = threading.Thread(target=closed, args=(client.sock,))
        taking.start()
        good.reply()
        client.sock.shutdown(socket.SHUT_WR)
        taking.join()
    assert disk.before < limit


def test_slow_requests_that_flood_let_others_in_between() -> None:
    disk = MemoryDisk(SIZE)
    with serving(disk, workers=1) as (path, _), Client(path) as client, Client(path) as good:
        _have_waiting(disk, client, nbd.FLUSH, 100)
        _have_waiting(disk, good, nbd.CACHE, 1)
        disk.gate.set()
        good.reply()
        assert disk.calls.index("prefetch") < 4


@pytest.mark.parametrize("goodbye", [False, True])
def test_what_no_worker_has_begun_for_a_client_that_is_gone_is_not_done(*, goodbye: bool) -> None:
    """Else clients that come and go would fill the memory; but who says goodbye may rely on it."""
    disk = MemoryDisk(SIZE)
    with serving(disk, workers=1) as (path, server), Client(path) as good:
        with Client(path) as client:
            _have_waiting(disk, client, nbd.FLUSH, 100)
            if goodbye:
                client.send(nbd.DISC)
        _only_the_good_one_is_left(server)
        _have_waiting(disk, good, nbd.CACHE, 1)
        disk.gate.set()
        good.reply()
        until(lambda: disk.calls.count("flush") == (100 if goodbye else 1))


def _have_waiting(disk: MemoryDisk, client: Client, command: int, count: int) -> None:
    """Requests that wait for the disk; they are here when the read behind them is answered."""
    disk.gate.clear()
    sent = [client.send(command) for _ in range(count)]
    read = client.send(nbd.READ, 0, 512)
    assert client.reply()[0] == read
    assert read not in sent


def test_announcing_a_large_write_costs_nothing() -> None:
    with serving(MemoryDisk(SIZE)) as (path, _):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clients = [Client(path) for _ in range(20)]
        for client in clients:
            client.sock.sendall(header(nbd.WRITE, 0, 32 << 20))
        time.sleep(0.3)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
        for client in clients:
            client.sock.close()


@pytest.mark.parametrize("seed", range(6))
def test_random_bytes(seed: int) -> None:
    """Garbage at every stage: pure, behind a handshake, and damaged valid streams."""
    rng = random.Random(seed)
    with serving(MemoryDisk(SIZE)) as (path, _), good_client(path):
        for _ in range(40):
            _throw(path, rng)


def _throw(path: str, rng: random.Random) -> None:
    kind = rng.randrange(3)
    style = rng.choice(["simple", "structured", "extended"])
    with nbd.connect(path) if kind == 0 else Client(path, style=style).sock as sock:
        sock.settimeout(2)
        try:
            sock.sendall(_garbage(rng, kind))
            sock.shutdown(socket.SHUT_WR)
            assert closed(sock)
        except (BrokenPipeError, ConnectionResetError):
            return


def _garbage(rng: random.Random, kind: int) -> bytes:
    if kind < 2:
        return rng.randbytes(rng.randrange(1, 300))
    stream = bytearray()
    for _ in range(rng.randrange(1, 20)):
        length = rng.choice([0, 1, 512, 70_000])
        command = rng.randrange(9)
        stream += header(command, rng.randrange(2 * SIZE), length, flags=rng.choice([0, 0, 1, 4, 8, 64]))
        stream += rng.randbytes(length) if command == nbd.WRITE else b""
    for _ in range(rng.randrange(3)):
        stream[rng.randrange(len(stream))] ^= 1 << rng.randrange(8)
    return bytes(stream[: rng.randrange(1, len(stream) + 1)])
