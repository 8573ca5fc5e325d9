"""Bandwidth limits of a real worker: met within 5 %, shared, changed while in use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivebay.service.worker import NBD_SOCKET, WorkerClient, WorkerProcess
from support.nbd_client import FLUSH, WRITE
from support.paced import Transfer, transfer_all
from support.patience import until
from support.workers import nbd, new_disk, running

MIB = 1 << 20
SECONDS = 4.0
TRIES = 3  # a machine that stands still for a moment spoils one


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Two disks in one group, and one in none; all written already."""
    folder = tmp_path_factory.mktemp("disks")
    specs = [replace(new_disk(folder / f"{name}.vdi", name), group="slow") for name in ("one", "two")]
    with running([*specs, new_disk(folder / "free.vdi", "free")], {"slow": 0}) as process:
        for name in ("one", "two", "free"):
            with nbd(process, name) as guest:
                for offset in range(0, guest.size, 8 * MIB):
                    guest.write(offset, bytes([1]) * (8 * MIB))
        yield process


@pytest.fixture
def client(worker: WorkerProcess) -> Iterator[WorkerClient]:
    with worker.connect(timeout=60) as connected:
        yield connected
        connected.limit("slow", 0)


def _socket(worker: WorkerProcess) -> str:
    return str(Path(worker.run_folder, NBD_SOCKET))


@pytest.mark.parametrize(
    ("limit", "transfers"),
    [
        (2 * MIB, [Transfer("one", 1, 4096)]),
        (2 * MIB, [Transfer("one", 1, 4096, WRITE)]),
        (8 * MIB, [Transfer("one", 32, 4096)]),
        (8 * MIB, [Transfer("one", 32, 4096, WRITE)]),
        (40 * MIB, [Transfer("one", 4, MIB, WRITE)]),
        (16 * MIB, [Transfer("one", 1, 32 * MIB)]),
        (16 * MIB, [Transfer("one", 2, 32 * MIB, WRITE)]),
        (8 * MIB, [Transfer("one", 32, 65536), Transfer("two", 32, 4096, WRITE)]),
        (8 * MIB, [Transfer("one", 2, MIB), Transfer("two", 8, 65536, WRITE)]),
    ],
)
def test_a_limit_is_met_within_five_percent(
    worker: WorkerProcess, client: WorkerClient, limit: int, transfers: list[Transfer]
) -> None:
    client.limit("slow", limit)
    for _ in range(TRIES):
        rates = [result.rate for result in transfer_all(_socket(worker), transfers, SECONDS)]
        if met := sum(rates) == pytest.approx(limit, rel=0.05) and max(rates) < 2 * min(rates):
            break
    assert met, rates


def test_flushes_and_other_disks_do_not_wait(worker: WorkerProcess, client: WorkerClient) -> None:
    client.limit("slow", 1)  # the first write is paid for when the machine is gone
    with nbd(worker, "one") as slow, nbd(worker, "free") as free:
        for number in range(8):
            slow.send(WRITE, number * 65536, 65536, bytes(65536))
        flush = slow.send(FLUSH)
        assert slow.reply()[0] == flush
        for number in range(100):
            free.write(number * 65536, bytes(65536))
        assert client.status()["one"]["throttled"] == 8
        client.limit("slow", 0)
        for _ in range(8):
            assert not slow.reply()[1].error
    assert client.status()["one"]["throttled"] == 0


def test_an_ending_worker_does_what_waits(tmp_path: Path) -> None:
    spec = replace(new_disk(tmp_path / "a.vdi"), group="slow")
    with running([spec], {"slow": 1}) as worker:
        with nbd(worker) as guest:
            for number in range(8):
                guest.send(WRITE, number * 4096, 4096, bytes([number + 1]) * 4096)
            time.sleep(0.3)
            worker.process.terminate()
            for _ in range(8):
                assert not guest.reply()[1].error
        assert worker.process.wait(20) == 0
    with running([replace(spec, group="")]) as worker, nbd(worker) as guest:
        assert guest.read(0, 32768) == b"".join(bytes([number + 1]) * 4096 for number in range(8))


def test_what_waits_for_a_client_that_is_gone_is_not_done(
    worker: WorkerProcess, client: WorkerClient
) -> None:
    client.limit("slow", 1)
    with nbd(worker, "two") as guest:
        for number in range(8):
            guest.send(WRITE, number << 20, 4096, bytes([255]) * 4096)
        until(lambda: client.status()["two"]["throttled"] == 8)
    until(lambda: not client.status()["two"]["throttled"])
    client.limit("slow", 0)
    with nbd(worker, "two") as guest:
        assert all(guest.read(number << 20, 4096) != bytes([255]) * 4096 for number in range(1, 8))
