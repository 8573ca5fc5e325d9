"""The server with well-behaved clients: every command in every style, many clients, its end."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.exports import Export, NbdServer
from support import nbd_client as nbd
from support.memory_disk import MemoryDisk
from support.nbd_client import Client
from support.nbd_server import SIZE, serving
from support.patience import until

STYLES = ("simple", "structured", "extended")


def random_disk(size: int = SIZE, *, writable: bool = True) -> MemoryDisk:
    disk = MemoryDisk(size)
    disk.write(0, random.Random(1).randbytes(size))
    disk.writable = writable
    disk.calls.clear()
    return disk


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_reads_and_writes_of_many_sizes(style: str, later: bool) -> None:
    disk = random_disk()
    disk.later = later
    rng = random.Random(2)
    with serving(disk) as (path, _), Client(path, style=style) as client:
        for length in (1, 511, 4096, 65536, 262_145, 1 << 20, (1 << 20) + 1, 5_000_000):
            offset = rng.randrange(SIZE - length)
            assert client.read(offset, length) == disk.data[offset : offset + length]
            data = rng.randbytes(length)
            offset = rng.randrange(SIZE - length)
            client.write(offset, data)
            assert disk.data[offset : offset + length] == data


@pytest.mark.parametrize("style", STYLES)
def test_pipelined_requests_of_all_kinds(style: str) -> None:
    disk = MemoryDisk(SIZE)
    disk.write(0, b"d" * 65536)
    with serving(disk) as (path, _), Client(path, style=style) as client:
        wanted = {}
        for number in range(200):
            wanted[client.send(nbd.READ, number * 4096 % 131072, 4096)] = number * 4096 % 131072
            if number % 7 == 0:
                client.send(nbd.WRITE, 1 << 20, 100, b"w" * 100)
            if number % 11 == 0:
                client.send(nbd.FLUSH)
            if number % 13 == 0:
                client.send(nbd.READ, SIZE, 4096)
        for _ in range(200 + 29 + 19 + 16):
            cookie, reply = client.reply()
            if cookie in wanted:
                assert reply.data == (b"d" if wanted[cookie] < 65536 else b"\0") * 4096
    assert disk.calls.count("flush") == 19 + 1  # the last one is the server's own


@pytest.mark.parametrize("style", STYLES)
def test_requests_may_arrive_in_pieces(style: str) -> None:
    """The same stream in random pieces, from single bytes to several requests, has the same effect."""
    disk, rng = random_disk(), random.Random(4)
    shadow = bytearray(disk.data)
    with serving(disk) as (path, _), Client(path, style=style) as client:
        real, stream, reads = client.sock, bytearray(), {}
        client.sock = SimpleNamespace(sendall=stream.extend)
        for number in range(50):
            length = rng.choice([1, 100, 4096, 70_000, 300_000])
            offset = number * 320 * 1024
            if number % 3:
                data = rng.randbytes(length)
                shadow[offset : offset + length] = data
                client.send(nbd.WRITE, offset, length, data, flags=rng.choice([0, 0, nbd.FUA]))
            else:
                reads[client.send(nbd.READ, offset, length)] = shadow[offset : offset + length]
        client.sock = real
        sender = threading.Thread(target=_send_in_pieces, args=(real, bytes(stream), rng))
        sender.start()
        for _ in range(50):
            cookie, reply = client.reply()
            assert reply.error == 0
            assert reply.data == reads.get(cookie, b"")
        sender.join()
    assert disk.data == shadow


def _send_in_pieces(sock: socket.socket, stream: bytes, rng: random.Random) -> None:
    at = 0
    while at < len(stream):
        step = rng.choice([1, 5, 27, 28, 29, 1000, 100_000, 400_000])
        sock.sendall(stream[at : at + step])
        at += step


@pytest.mark.parametrize("style", ["structured", "extended"])
def test_holes_cost_no_bytes(style: str) -> None:
    with serving(MemoryDisk(SIZE)) as (path, _), Client(path, style=style) as client:
        assert client.call(nbd.READ, 4096, 8192).chunks == [(2, 4096, 8192)]
        assert client.call(nbd.READ, 0, 4 << 20).chunks == [(2, 0, 4 << 20)]
        unsplit = client.call(nbd.READ, 0, 4 << 20, flags=nbd.DF)
        assert unsplit.chunks == [(1, 0, 4 << 20)]
        assert unsplit.data == bytes(4 << 20)


@pytest.mark.parametrize("style", STYLES)
def test_errors_leave_the_connection_usable(style: str) -> None:
    with serving(random_disk(), read_only=True) as (path, _), Client(path, style=style) as client:
        assert client.call(nbd.READ, SIZE - 1, 2).error == 22
        assert client.call(nbd.WRITE, 0, 4, b"data").error == 1
        assert client.call(nbd.WRITE, 0, 400_000, bytes(400_000)).error == 1
        assert client.call(nbd.WRITE_ZEROES, 0, 4).error == 1
        assert client.call(99).error == 22
        assert client.call(nbd.READ, 0, 0).error == 0
        reply = client.call(nbd.TRIM, 0, 4)
        assert reply.error == 1
        assert reply.message == ("" if style == "simple" else "the export is read-only")
        assert len(client.read(0, 100)) == 100


def test_writing_beyond_the_end_is_no_space() -> None:
    with serving(random_disk()) as (path, _), Client(path) as client:
        for offset, length in ((SIZE, 4), (SIZE - 1, 2), (1 << 63, 100), (SIZE - 4, 300_000)):
            assert client.call(nbd.WRITE, offset, length, bytes(length)).error == 28


def test_extended_headers_take_64_bit_lengths_and_unexpected_payloads() -> None:
    disk = MemoryDisk(SIZE)
    disk.size = 1 << 50
    contexts = ("base:allocation",)
    with serving(disk) as (path, _), Client(path, style="extended", contexts=contexts) as client:
        reply = client.call(nbd.BLOCK_STATUS, 0, 1 << 23)
        assert reply.status == {client.contexts["base:allocation"]: [(1 << 23, 3)]}
        assert client.call(nbd.READ, 0, 1 << 40).error == 75
        assert client.call(nbd.TRIM, 0, 8, b"12345678", flags=nbd.PAYLOAD_LEN).error == 22
        assert client.call(nbd.BLOCK_STATUS, 0, 12, bytes(12), flags=nbd.PAYLOAD_LEN).error == 22
        assert client.read(0, 10) == bytes(10)


@pytest.mark.parametrize("style", ["structured", "extended"])
def test_block_status_in_both_contexts(style: str) -> None:
    disk = MemoryDisk(SIZE)
    disk.write(4096, b"x" * 4096)
    contexts = ("base:allocation", "qemu:allocation-depth")
    with serving(disk) as (path, _), Client(path, style=style, contexts=contexts) as client:
        base, depth = (client.contexts[name] for name in contexts)
        reply = client.call(nbd.BLOCK_STATUS, 0, SIZE)
        assert reply.status[base] == [(4096, 3), (4096, 0), (SIZE - 8192, 3)]
        assert reply.status[depth] == [(4096, 0), (4096, 1), (SIZE - 8192, 0)]
        one = client.call(nbd.BLOCK_STATUS, 5000, 100, flags=nbd.REQ_ONE)
        assert one.status == {base: [(100, 0)], depth: [(100, 1)]}


def test_replies_from_the_workers_come_out_of_order() -> None:
    disk = random_disk()
    with serving(disk) as (path, _), Client(path) as client:
        disk.gate.clear()
        slow = client.send(nbd.FLUSH)
        fast = client.send(nbd.READ, 0, 4096)
        assert client.reply()[0] == fast
        disk.gate.set()
        assert client.reply()[0] == slow


def test_many_clients_and_exports_over_unix_and_tcp() -> None:
    disks = [random_disk(1 << 20), random_disk(1 << 20)]
    disks[1].data[:] = bytes(byte ^ 255 for byte in disks[0].data)
    exports = {str(number): Export(disk, str(number)) for number, disk in enumerate(disks)}
    server = NbdServer(exports)
    address = server.listen_tcp(port=0)
    assert address[0] == "127.0.0.1"
    equal = []

    def work(number: int) -> None:
        with Client(address, str(number % 2)) as client:
            data = b"".join(client.read(offset, 65536) for offset in range(0, 1 << 20, 65536))
            equal.append(data == disks[number % 2].data)

    with server.in_thread():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert equal == [True] * 8
    assert server.stats.accepted == 8
    assert server.stats.connections == 0
    assert server.stats.read_bytes == 8 << 20


def test_one_flush_covers_all_connections() -> None:
    disk = random_disk()
    with serving(disk) as (path, _), Client(path) as one, Client(path) as other:
        assert one.flags & 1 << 8
        one.write(0, b"data")
        assert other.read(0, 4) == b"data"
        other.call(nbd.FLUSH)
        assert disk.calls == ["flush"]


def test_stats_count_requests_and_bytes() -> None:
    with serving(random_disk()) as (path, server):
        with Client(path) as client:
            client.read(0, 4096)
            client.write(0, bytes(512))
            client.call(nbd.READ, SIZE, 1)
            assert server.stats.connections == 1
            assert (server.stats.requests, server.stats.errors) == (3, 1)
            assert (server.stats.read_bytes, server.stats.written_bytes) == (4096, 512)
        until(lambda: server.stats.connections == 0)


def test_disc_closes_after_what_is_under_way() -> None:
    disk = random_disk()
    with serving(disk) as (path, _), Client(path) as client:
        disk.gate.clear()
        flush = client.send(nbd.FLUSH)
        client.send(nbd.DISC)
        client.send(nbd.READ, 0, 10)
        threading.Timer(0.1, disk.gate.set).start()
        assert client.reply()[0] == flush
        with pytest.raises(ConnectionError):
            client.receive(1)


def test_stop_answers_what_is_under_way_and_flushes() -> None:
    disk = random_disk()
    with serving(disk) as (path, server), Client(path) as client:
        disk.gate.clear()
        cookie = client.send(nbd.WRITE, 0, 5, b"abcde", flags=nbd.FUA)
        until(lambda: "write fua" in disk.calls)
        server.stop()
        threading.Timer(0.2, disk.gate.set).start()
        assert client.reply() == (cookie, nbd.Reply())
        with pytest.raises(ConnectionError):
            client.receive(1)
        until(lambda: disk.calls[-1] == "flush")
        assert not os.path.exists(path)


def test_stop_waits_for_a_stuck_client_only_so_long() -> None:
    with serving(random_disk(), drain_timeout=0.3) as (path, server), Client(path) as client:
        for _ in range(20):
            client.send(nbd.READ, 0, 8 << 20)
        until(lambda: server.stats.requests > 0)
        begin = time.monotonic()
        server.stop()
        until(lambda: server.stats.connections == 0)
        assert time.monotonic() - begin < 30  # the client stays for as long as the test


def test_a_failed_last_flush_is_raised() -> None:
    disk = random_disk()

    def serve() -> None:
        with serving(disk):
            disk.failure = StorageError(ErrorKind.IO, "the device is gone")

    with pytest.raises(StorageError, match="the device is gone"):
        serve()


def test_due_epochs_are_flushed_without_a_client_asking() -> None:
    disk = random_disk()
    with serving(disk) as (path, _), Client(path) as client:
        client.write(0, b"data")
        disk.due = True
        until(lambda: "flush" in disk.calls)
        disk.due = False


def test_a_failed_background_flush_is_logged_and_serving_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    disk = random_disk()
    with serving(disk) as (path, _), Client(path) as client:
        client.write(0, b"data")
        disk.failure, disk.due = StorageError(ErrorKind.IO, "no luck"), True
        until(lambda: "no luck" in caplog.text)
        assert client.read(0, 4) == b"data"
        assert client.call(nbd.FLUSH).error == 5
        assert disk.calls.count("flush") == 2
        disk.failure, disk.due = None, False


def test_the_socket_is_the_owners_and_goes_away() -> None:
    with serving(random_disk()) as (path, _):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not os.path.exists(path)


def test_a_live_socket_is_refused_and_a_stale_one_replaced() -> None:
    with serving(random_disk()) as (path, _):
        second = NbdServer({"": Export(MemoryDisk(512))})
        with pytest.raises(StorageError, match="another server") as caught:
            second.listen_unix(path)
        assert caught.value.kind is ErrorKind.IN_USE
        stale = str(Path(path).with_name("stale"))
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(stale)
        second.listen_unix(stale)
        with second.in_thread(), Client(stale) as client:
            assert client.size == 512


def test_other_files_and_bad_addresses_are_refused() -> None:
    with serving(random_disk()) as (path, _):
        server = NbdServer({})
        plain = Path(path).with_name("file")
        plain.write_text("precious")
        with pytest.raises(StorageError, match="not a socket"):
            server.listen_unix(str(plain))
        assert plain.read_text() == "precious"
        with pytest.raises(StorageError) as caught:
            server.listen_unix(str(Path(path).parent / "missing" / "socket"))
        assert caught.value.kind is ErrorKind.NOT_FOUND
        with pytest.raises(StorageError, match="path too long"):
            server.listen_unix("/tmp/" + "x" * 200)
        with pytest.raises(StorageError, match="check the address"):
            server.listen_tcp("no.such.host.invalid", 1)
        server.stop()
        server.run()


def test_a_busy_port_is_in_use() -> None:
    one, two = NbdServer({}), NbdServer({})
    host, port = one.listen_tcp(port=0)
    with pytest.raises(StorageError) as caught:
        two.listen_tcp(host, port)
    assert caught.value.kind is ErrorKind.IN_USE
    for server in (one, two):
        server.stop()
        server.run()


def test_one_client_too_many_is_turned_away() -> None:
    with serving(random_disk(), max_connections=2) as (path, _):
        with Client(path), Client(path), pytest.raises(ConnectionError):
            Client(path)
        until(lambda: _answers(path))


def _answers(path: str) -> bool:
    with nbd.connect(path) as sock:
        return bool(sock.recv(18))


def test_a_server_without_exports_says_so() -> None:
    with serving() as (path, _), Client(path, go=False) as client:
        assert client.option(nbd.LIST) == [(nbd.ACK, b"")]
        assert client.option(nbd.GO, struct.pack(">IH", 0, 0))[0][0] == nbd.ERR_UNKNOWN


def test_an_idle_server_does_not_spin() -> None:
    with serving(random_disk()) as (path, _), Client(path) as client:
        for _ in range(500):
            client.read(0, 4096)
        client.write(0, b"data")
        begin = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - begin < 0.1
