"""QEMU's NBD client with a worker that is killed, and replaced, under its hands."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivebay.chain import open_chain
from drivebay.engine.disk import Disk
from drivebay.service.worker import NBD_SOCKET, DiskSpec, start_worker
from support.workers import nbd, new_disk, running

MIB = 1 << 20


@contextmanager
def qemu_io(run_folder: str) -> Iterator[subprocess.Popen[str]]:
    """QEMU's client of the worker, which waits a minute for a server that is gone."""
    node = f"driver=nbd,server.type=unix,server.path={run_folder}/{NBD_SOCKET},export=disk,reconnect-delay=60"
    command = ["qemu-io", "--image-opts", node]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def begin(qemu: subprocess.Popen[str], command: str) -> None:
    """Give a command: one at a time, for it looks for no second one in what it has read."""
    assert qemu.stdin is not None
    qemu.stdin.write(command + "\n")
    qemu.stdin.flush()


def finish(qemu: subprocess.Popen[str], expected: str) -> None:
    """Wait for the answer, which has two lines."""
    assert qemu.stdout is not None
    assert expected in qemu.stdout.readline()
    assert "ops/sec" in qemu.stdout.readline()


def test_qemu_goes_on_with_the_worker_that_follows_a_killed_one(tmp_path: Path) -> None:
    spec = new_disk(tmp_path / "a.vdi")
    with running([spec]) as worker, qemu_io(worker.run_folder) as qemu:
        begin(qemu, "write -P 1 0 1M")
        finish(qemu, "wrote 1048576/1048576")
        with worker.connect() as client:
            client.flush()
        worker.process.kill()
        worker.process.wait()
        begin(qemu, "write -P 2 1M 1M")
        with running_in(worker.run_folder, spec):
            finish(qemu, "wrote 1048576/1048576")
            for number in range(2):
                begin(qemu, f"read -P {number + 1} {number}M 1M")
                finish(qemu, "read 1048576/1048576")
    with Disk(open_chain(spec.paths[0]).layers) as disk:
        assert disk.read(0, 2 * MIB) == bytes([1]) * MIB + bytes([2]) * MIB


@contextmanager
def running_in(run_folder: str, spec: DiskSpec) -> Iterator[None]:
    """Another worker in the folder of one that is gone."""
    worker = start_worker(run_folder, [spec])
    try:
        yield
    finally:
        assert worker.stop() == 0


def test_nothing_that_was_flushed_is_lost_when_the_worker_is_killed_under_load(tmp_path: Path) -> None:
    spec = new_disk(tmp_path / "a.vdi")
    with running([spec]) as worker, nbd(worker) as guest:
        for number in range(32):
            guest.write(number * MIB, bytes([number + 1]) * MIB)
            assert not guest.call(3).error
        for number in range(32, 48):
            guest.send(1, number * MIB, MIB, bytes([number + 1]) * MIB)
        worker.process.kill()
        worker.process.wait()
    with running([spec]) as worker, nbd(worker) as guest:
        for number in range(32):
            assert guest.read(number * MIB, MIB) == bytes([number + 1]) * MIB
        for number in range(32, 48):
            assert set(guest.read(number * MIB, MIB)) <= {0, number + 1}
