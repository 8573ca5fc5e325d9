"""A real guest agent freezes a real file system for a snapshot, and it is thawed whatever happens."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from drivebay.chain import open_chain
from drivebay.cli.app import app
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Controller, Slot
from drivebay.qemu import TinyGuest
from drivebay.registry.database import open_registry
from drivebay.registry.medium import DeviceType
from drivebay.service import online_snapshots
from drivebay.service.snapshots import Taken, take_snapshot
from support.guest_agent import START, add_guest_agent
from support.guest_shell import MIB, Bench, Shell, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

DISK = Slot("SATA", 0)
# Counts what is durable in the file system: it stands still while that is frozen.
WRITER = (
    "(i=0; while :; do i=$((i+1)); echo $i > /mnt/count; sync /mnt/count; "
    "echo $i > /tmp/now; mv /tmp/now /tmp/count; done) > /dev/null 2>&1 &"
)
# In ext4's superblock: a word of flags, and the flag that the journal must be replayed.
FLAGS, NEEDS_RECOVERY = 1024 + 0x60, 4


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest, Controller("SATA", "IntelAhci", 2)) as bench:
        image = bench.folder / "disk.img"
        with image.open("wb") as file:
            file.truncate(32 * MIB)
        mkfs = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert mkfs
        subprocess.run([mkfs, "-q", image], check=True, timeout=60)
        bench.attach(DISK, image, DeviceType.DISK, 32 * MIB)
        bench.save()
        add_guest_agent(Path(bench.settings.initrd))
        yield bench


@pytest.mark.timeout(600)
def test_the_agent_freezes_and_the_supervisor_thaws(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = bench.start()
    shell.run("mount -t ext4 /dev/sda /mnt")
    shell.run(WRITER)
    _goes_on(shell)
    _without_an_agent(bench)
    shell.run(START)
    _frozen_until_thawed(bench, shell)
    _snapshots(bench, shell)
    _a_snapshot_that_fails(bench, shell, monkeypatch)
    _a_client_that_goes_away(bench, shell)
    _a_supervisor_that_dies(bench, shell)
    _a_supervisor_that_dies_meanwhile(bench, shell, monkeypatch)
    _an_agent_that_hangs(bench, shell)


def _count(shell: Shell) -> int:
    return int(shell.run("cat /tmp/count 2>/dev/null || echo 0"))


def _goes_on(shell: Shell) -> None:
    before = _count(shell)
    until(lambda: _count(shell) > before + 2, "the writer goes on")


def _stands_still(shell: Shell) -> None:
    time.sleep(0.5)  # for a write that had just been done
    before = _count(shell)
    time.sleep(1)
    assert _count(shell) == before


def _take(bench: Bench, name: str) -> Taken:
    return take_snapshot(bench.home, "bench", name, memory=False, freeze=True)


def _needs_recovery(bench: Bench, taken: Taken) -> bool:
    """Whether the file system that the snapshot holds was in use, as after a power cut."""
    (at,) = taken.snapshot.hardware.attachments
    assert at.medium
    with open_registry(bench.home) as registry, registry.view() as view:
        paths = [medium.path for medium in view.tree.chain(at.medium)]
    with Disk(open_chain(paths[0], search=paths, lock=False).layers) as disk:
        (flags,) = struct.unpack("<I", disk.read(FLAGS, 4))
    return bool(flags & NEEDS_RECOVERY)


def _without_an_agent(bench: Bench) -> None:
    started = time.monotonic()
    taken = _take(bench, "no agent")
    assert time.monotonic() - started < 30
    assert taken.frozen == 0
    assert [("were not frozen" in one, "qemu-guest-agent" in one) for one in taken.warnings] == [(True, True)]
    assert _needs_recovery(bench, taken)


def _frozen_until_thawed(bench: Bench, shell: Shell) -> None:
    with bench.client() as client, bench.client() as other:
        assert client.guest_freeze() == 1
        _stands_still(shell)
        with pytest.raises(StorageError, match="for somebody else") as caught:
            other.guest_freeze()
        assert caught.value.kind is ErrorKind.IN_USE
        assert client.guest_thaw() == 1
    _goes_on(shell)


def _snapshots(bench: Bench, shell: Shell) -> None:
    for name in ("first", "second"):
        taken = _take(bench, name)
        print(f"held for {taken.paused * 1000:.1f} ms, frozen for {taken.frozen * 1000:.0f} ms")
        assert (taken.warnings, taken.kind) == ((), "disks")
        assert taken.frozen > taken.paused > 0
        assert not _needs_recovery(bench, taken)
        _goes_on(shell)
    words = ["--home", bench.home.folder, "snapshot", "take", "bench", "third", "--no-state", "--freeze"]
    told = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert re.search(r"stood still for \d+ ms\nits file systems were frozen for \d+ ms", told)


def _a_snapshot_that_fails(bench: Bench, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        _stands_still(shell)
        raise StorageError(ErrorKind.NO_SPACE, "the registry can't grow; free some space")

    with monkeypatch.context() as patch:
        patch.setattr(online_snapshots, "_commit", fail)
        with pytest.raises(StorageError, match="can't grow"):
            _take(bench, "in vain")
    _goes_on(shell)


def _a_client_that_goes_away(bench: Bench, shell: Shell) -> None:
    with bench.client() as client:
        client.guest_freeze()
        _stands_still(shell)
    _goes_on(shell)


def _a_supervisor_that_dies(bench: Bench, shell: Shell) -> None:
    with bench.client() as client:
        client.guest_freeze()
        os.kill(client.status()["supervisor"], signal.SIGKILL)
    _stands_still(shell)
    with bench.client() as client:
        assert client.status()["state"] == "running"
    _goes_on(shell)


def _a_supervisor_that_dies_meanwhile(bench: Bench, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = online_snapshots._commit

    def kill_then_commit(*arguments: Any) -> None:
        with bench.client() as client:
            os.kill(client.status()["supervisor"], signal.SIGKILL)
        commit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(online_snapshots, "_commit", kill_then_commit)
        taken = _take(bench, "orphaned")
    assert ["may still be frozen" in one for one in taken.warnings] == [True]
    _goes_on(shell)


def _an_agent_that_hangs(bench: Bench, shell: Shell) -> None:
    shell.run("kill -STOP $(cat /var/run/qga.pid)")
    taken = _take(bench, "hanging")
    assert (taken.frozen, len(taken.warnings)) == (0, 1)
    _goes_on(shell)
    with bench.client() as client:
        client.pause()
    paused = _take(bench, "paused")
    assert ["the guest is paused" in one for one in paused.warnings] == [True]
    with bench.client() as client:
        client.resume()
    shell.run("kill -CONT $(cat /var/run/qga.pid)")
    assert _take(bench, "again").warnings == ()
    _goes_on(shell)
