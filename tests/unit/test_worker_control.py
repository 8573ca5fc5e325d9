"""The worker's control protocol: hostile messages, sockets, start and end."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.worker import (
    CONTROL_SOCKET,
    NBD_SOCKET,
    DiskSpec,
    WorkerClient,
    WorkerProcess,
    rates,
    start_worker,
)
from drivebay.service.worker.messages import LONGEST_LINE
from support.signals import signal_another_thread
from support.workers import nbd, new_disk, running


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker with one disk that all tests here may use."""
    with running([new_disk(tmp_path_factory.mktemp("disk") / "a.vdi")]) as process:
        yield process


@pytest.fixture
def raw(worker: WorkerProcess) -> Iterator[socket.socket]:
    """A control connection without a client."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(os.path.join(worker.run_folder, CONTROL_SOCKET))
        yield sock


def exchange(sock: socket.socket, line: bytes) -> Any:
    sock.sendall(line + b"\n")
    return next_answer(sock)


def next_answer(sock: socket.socket) -> Any:
    with sock.makefile("rb") as stream:
        return json.loads(stream.readline())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[]",
        b"17",
        b"null",
        b'"status"',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 10_000,
        b'{"do": "status"' + b" " * LONGEST_LINE + b"}",
        b'{"id": 1}',
        b'{"id": 1, "do": "explode"}',
        b'{"id": 1, "do": ["status"]}',
        b'{"id": 1, "do": "__class__"}',
        b'{"id": 1, "do": "open"}',
        b'{"id": 1, "do": "open", "disk": []}',
        b'{"id": 1, "do": "open", "disk": {"export": "x", "paths": []}}',
        b'{"id": 1, "do": "open", "disk": {"export": "x", "paths": ["a\\u0000b"]}}',
        b'{"id": 1, "do": "open", "disk": {"export": "\\ud800", "paths": ["/a"]}}',
        b'{"id": 1, "do": "open", "disk": {"export": "", "paths": ["/a"]}}',
        b'{"id": 1, "do": "open", "disk": {"export": "x", "paths": ["/a"], "writable": 1}}',
        b'{"id": 1, "do": "open", "disk": {"export": "x", "paths": ["/a"], "cache": []}}',
        b'{"id": 1, "do": "push", "images": [1]}',
        b'{"id": 1, "do": "push", "images": {"disk": 5}}',
        b'{"id": 1, "do": "hold", "exports": "disk"}',
        b'{"id": 1, "do": "rebase", "export": "disk"}',
        b'{"id": 1, "do": "limit", "group": "g", "bytes_per_second": -1}',
        b'{"id": 1, "do": "limit", "group": "g", "bytes_per_second": 1e400}',
        b'{"id": 1, "do": "limit", "group": "g", "bytes_per_second": true}',
        b'{"id": 1, "do": "flush", "exports": {}}',
    ],
    ids=range(31),
)
def test_a_bad_message_is_answered_by_an_error_and_the_next_one_works(
    raw: socket.socket, line: bytes
) -> None:
    assert exchange(raw, line)["error"]["kind"] == "invalid"
    answer = exchange(raw, b'{"id": [7], "do": "status"}')
    assert answer["id"] == [7]
    assert "disk" in answer["ok"]["exports"]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('{"id": 1, "do": "close", "export": "none"}', "not-found"),
        ('{"id": 1, "do": "push", "images": {"none": "/a"}}', "not-found"),
        ('{"id": 1, "do": "push", "images": {"disk": "/nowhere/a.vdi"}}', "not-found"),
        ('{"id": 1, "do": "hold", "exports": ["disk", "none"]}', "not-found"),
        ('{"id": 1, "do": "open", "disk": {"export": "disk", "paths": ["/a"]}}', "in-use"),
        ('{"id": 1, "do": "open", "disk": {"export": "x", "paths": ["/nowhere/a"]}}', "not-found"),
        ('{"id": 1, "do": "open", "disk": {"export": "x", "paths": ["/dev/null"]}}', "invalid"),
        ('{"id": 1, "do": "rebase", "export": "disk", "paths": ["/nowhere/a"]}', "not-found"),
    ],
)
def test_what_cannot_be_done_is_told_with_its_kind(raw: socket.socket, message: str, kind: str) -> None:
    error = exchange(raw, message.encode())["error"]
    assert error["kind"] == kind
    assert error["message"]


def test_half_a_line_and_a_client_that_goes_harm_nobody(worker: WorkerProcess) -> None:
    for _ in range(40):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(os.path.join(worker.run_folder, CONTROL_SOCKET))
            sock.sendall(b'{"id": 1, "do": "sta')
    with worker.connect() as client:
        assert list(client.status()) == ["disk"]


def test_too_many_control_clients_are_told_so(worker: WorkerProcess) -> None:
    clients = [worker.connect() for _ in range(40)]
    try:
        with pytest.raises(StorageError, match=r"control this worker already|the worker ended"):
            clients[-1].status()
        assert "disk" in clients[0].status()
    finally:
        for client in clients:
            client.close()


def test_nobody_else_may_reach_the_sockets(worker: WorkerProcess) -> None:
    assert stat.S_IMODE(os.stat(worker.run_folder).st_mode) == 0o700
    for name in (NBD_SOCKET, CONTROL_SOCKET):
        assert stat.S_IMODE(os.stat(os.path.join(worker.run_folder, name)).st_mode) == 0o600


def test_status_counts_what_clients_do(worker: WorkerProcess) -> None:
    with worker.connect() as client, nbd(worker) as guest:
        before = client.status()["disk"]
        guest.write(0, b"a" * 8192)
        guest.read(0, 4096)
        after = client.status()["disk"]
    assert after["writes"] == before["writes"] + 1
    assert after["written_bytes"] == before["written_bytes"] + 8192
    assert after["reads"] == before["reads"] + 1
    assert after["bytes"] == before["bytes"] + 8192 + 4096
    assert after["errors"] == 0
    assert rates(before, after)["writes"] == pytest.approx(1 / (after["time"] - before["time"]))
    assert rates(after, after)["writes"] == 0


@pytest.mark.parametrize("end", ["quit", "terminate"])
def test_an_end_that_is_asked_for_keeps_all_data(tmp_path: Path, end: str) -> None:
    spec = new_disk(tmp_path / "a.vdi")
    with running([spec]) as worker:
        with nbd(worker) as guest:
            guest.write(12345, b"kept" * 1000)
        if end == "quit":
            with worker.connect() as client:
                client.quit()
        else:
            os.kill(worker.pid, signal.SIGTERM)
        assert worker.process.wait(20) == 0
        assert sorted(os.listdir(worker.run_folder)) == ["worker.log"]
    with running([spec]) as worker, nbd(worker) as guest:
        assert guest.read(12345, 4000) == b"kept" * 1000


def test_a_signal_that_another_thread_gets_ends_the_worker_too(tmp_path: Path) -> None:
    with running([new_disk(tmp_path / "a.vdi")]) as worker:
        signal_another_thread(worker.pid, signal.SIGTERM)
        assert worker.process.wait(20) == 0


def test_what_a_worker_cannot_serve_is_the_error_of_its_start(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(StorageError) as caught:
        start_worker(str(folder), [DiskSpec("disk", (str(tmp_path / "none.vdi"),), writable=True)])
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.path == str(tmp_path / "none.vdi")
    assert not (folder / NBD_SOCKET).exists()


def test_a_second_worker_is_kept_off_the_images_and_the_sockets(tmp_path: Path) -> None:
    spec = new_disk(tmp_path / "a.vdi")
    with running([spec]) as worker:
        with pytest.raises(StorageError, match="in use") as caught:
            start_worker(str(tmp_path / "run"), [spec])
        assert caught.value.kind is ErrorKind.IN_USE
        with pytest.raises(StorageError) as caught:
            start_worker(worker.run_folder, [])
        assert caught.value.kind is ErrorKind.IN_USE
        with worker.connect() as client:
            assert "disk" in client.status()


def test_a_client_of_no_worker_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        WorkerClient.connect(str(tmp_path))
    assert caught.value.kind is ErrorKind.STATE


def test_a_killed_worker_is_noticed_and_replaced(tmp_path: Path) -> None:
    spec = new_disk(tmp_path / "a.vdi")
    with running([spec]) as worker:
        with worker.connect() as client, nbd(worker) as guest:
            guest.write(0, b"x" * 4096)
            client.flush()
            worker.process.kill()
            worker.process.wait()
            with pytest.raises(StorageError) as caught:
                client.status()
            assert caught.value.kind is ErrorKind.STATE
        again = start_worker(worker.run_folder, [spec])
        try:
            with nbd(again) as guest:
                assert guest.read(0, 4096) == b"x" * 4096
        finally:
            assert again.stop() == 0


def test_a_worker_outlives_whoever_started_it(tmp_path: Path) -> None:
    spec = new_disk(tmp_path / "a.vdi")
    script = f"""
        from drivebay.service.worker import DiskSpec, start_worker
        spec = DiskSpec("disk", ({spec.paths[0]!r},), writable=True)
        print(start_worker({str(tmp_path / "run")!r}, [spec]).pid, flush=True)
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pid = int(done.stdout)
    try:
        with WorkerClient.connect(str(tmp_path / "run")) as client:
            assert "disk" in client.status()
            client.quit()
        deadline = time.monotonic() + 20
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":  # nobody waits for it here
                break
            time.sleep(0.05)
        assert not (tmp_path / "run" / NBD_SOCKET).exists()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
