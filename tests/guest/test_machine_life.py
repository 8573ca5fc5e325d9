"""The life of one machine, in few boots: changed media, dead processes, a full disk, a saved state."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Controller, MachineState, Slot
from drivebay.model import CacheMode
from drivebay.qemu import TinyGuest
from drivebay.registry.medium import DeviceType
from drivebay.service.runtime import connect, is_running, start
from drivebay.service.worker import DiskSpec
from support.guest_shell import MIB, Bench, Shell, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

DISK = Slot("SATA", 0)
CD, STICKY_CD = Slot("SATA", 1), Slot("SATA", 2)
LOAD = (
    "for n in $(seq 30); do dd if=/dev/urandom of=/tmp/r bs=64k count=4 2>/dev/null; "
    "dd if=/tmp/r of=/dev/sda bs=64k seek=$((n * 4)) conv=fsync 2>/dev/null || exit 1; "
    "echo 3 > /proc/sys/vm/drop_caches; "
    "dd if=/dev/sda bs=64k skip=$((n * 4)) count=4 2>/dev/null | cmp - /tmp/r || exit 2; echo n$n; done"
)

FILL = (
    "dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null; "
    "dd if=/tmp/r of=/dev/sda bs=1M seek=40 conv=fsync 2>/dev/null"
)
CHECK = "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/sda bs=1M skip=40 count=8 2>/dev/null | cmp - /tmp/r"


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest, Controller("SATA", "IntelAhci", 4)) as bench:
        yield bench


@pytest.mark.timeout(1200)
def test_the_life_of_a_machine(bench: Bench) -> None:
    image = bench.disk(DISK, "disk.vdi", 64 * MIB)
    first, second = (_cd(bench.folder / f"{name}.iso", name) for name in ("first", "second"))
    bench.attach(CD, first, DeviceType.DVD, 4 * MIB)
    bench.attach(STICKY_CD, first, DeviceType.DVD, 4 * MIB, temp_eject=True)
    bench.save()
    shell = bench.start()
    assert bench.load().state is MachineState.RUNNING
    _only_once(bench)
    _pause_and_resume(bench, shell)
    _media_change(bench, shell, second)
    _guest_ejects(bench, shell)
    _worker_dies(bench, shell)
    _supervisor_dies(bench, shell)
    _disk_fills_up(bench, shell, image)
    shell = _save_and_resume(bench, shell, image)
    _reset(bench, shell)
    _qemu_dies(bench, image)


def _cd(path: Path, text: str) -> Path:
    path.write_bytes(text.encode().ljust(4 * MIB, b"\0"))
    return path


def _only_once(bench: Bench) -> None:
    with pytest.raises(StorageError, match="runs already") as caught:
        start(bench.home, bench.uuid)
    assert caught.value.kind is ErrorKind.IN_USE


def _pause_and_resume(bench: Bench, shell: Shell) -> None:
    with bench.client() as client:
        client.pause()
        assert client.status()["state"] == "paused"
        assert bench.load().state is MachineState.PAUSED
        with pytest.raises(StorageError, match="machine kill"):
            client.stop(1)
        client.resume()
        assert client.status()["state"] == "running"
        with pytest.raises(StorageError, match="no guest agent") as caught:
            client.guest_freeze()
        assert caught.value.kind is ErrorKind.UNSUPPORTED
    assert shell.run("echo alive") == "alive"


def _media_change(bench: Bench, shell: Shell, second: Path) -> None:
    spec = DiskSpec(str(CD), (str(second),), ("raw",), cache=CacheMode.WRITEBACK)
    with bench.client() as client:
        _require_content(shell, "first")
        client.change_medium(CD, spec)
        _require_content(shell, "second")
        shell.run("sleep 1000 < /dev/sr0 & sleep 0.5")  # an open drive is a locked one
        with pytest.raises(StorageError, match="locked the tray") as caught:  # E16
            client.change_medium(CD, None)
        assert caught.value.kind is ErrorKind.IN_USE
        missing = DiskSpec(str(CD), (str(bench.folder / "none.iso"),), ("raw",))
        with pytest.raises(StorageError, match=r"none\.iso"):
            client.change_medium(CD, missing, force=True)
        shell.run("killall sleep; sleep 0.5")
        _require_content(shell, "second")  # it is back
        client.change_medium(CD, None)
        shell.run("head -c 6 /dev/sr0 2>/dev/null", fails=True)
        assert str(CD) not in client.status()["disks"]
        client.change_medium(CD, spec)
        with pytest.raises(StorageError, match="no removable medium"):  # E15
            client.change_medium(DISK, None)


def _require_content(shell: Shell, text: str) -> None:
    """The first reads of a new medium fail, as those of a real drive that is not ready yet."""
    command = f"head -c {len(text)} /dev/sr0 2>/dev/null"
    until(lambda: shell.run(command, fails=True).endswith(text), f"the guest reads {text!r}")


def _guest_ejects(bench: Bench, shell: Shell) -> None:
    """What it ejects leaves the configuration, unless that is only for now."""
    autoeject = "/proc/sys/dev/cdrom/autoeject"  # when a drive is closed
    shell.run(
        f"echo 1 > {autoeject}; for n in 0 1; do head -c 1 /dev/sr$n > /dev/null; done; echo 0 > {autoeject}"
    )
    until(lambda: _medium(bench, CD) is None, "the ejected medium has left the configuration")
    assert _medium(bench, STICKY_CD) is not None
    with bench.client() as client:
        until(lambda: str(CD) not in client.status()["disks"], "nobody serves it any more")


def _medium(bench: Bench, slot: Slot) -> object:
    attachments = bench.load().hardware.attachments
    return next(each.medium for each in attachments if each.slot == slot)


def _worker_dies(bench: Bench, shell: Shell) -> None:
    with bench.client() as client:
        shell.send(LOAD)
        shell.wait_for("n3")
        worker = client.status()["worker"]
        os.kill(worker, signal.SIGKILL)
        assert "n30" in shell.end()
        status = client.status()
        assert status["worker_restarts"] == 1
        assert status["worker"] != worker
        assert status["disks"][str(DISK)]["writes"] > 0


def _supervisor_dies(bench: Bench, shell: Shell) -> None:
    with bench.client() as client:
        os.kill(client.status()["supervisor"], signal.SIGKILL)
        with pytest.raises(StorageError, match="supervisor"):
            client.status()
    assert is_running(bench.home, bench.uuid)
    with bench.client() as client:  # a new one adopts what runs
        assert client.status()["state"] == "running"
        client.pause()
        client.resume()
    assert shell.run("echo still alive") == "still alive"


def _disk_fills_up(bench: Bench, shell: Shell, image: Path) -> None:
    """E67: the worker may not make files larger, which is a full disk to it."""
    with bench.client() as client:
        worker = client.status()["worker"]
        most = resource.prlimit(worker, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (image.stat().st_size + 2 * MIB, most))
        shell.send(FILL)
        until(lambda: client.status()["state"] == "paused", "the guest is paused")
        reason = client.status()["reason"]
        assert f"no space left on the host for the disk at {DISK}" in reason
        os.kill(client.status()["supervisor"], signal.SIGKILL)
        with pytest.raises(StorageError, match="supervisor"):
            client.status()
    with bench.client() as client:
        assert client.status()["reason"] == reason  # whoever adopts the machine finds out
        assert client.status()["state"] == "paused"
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (most, most))
        client.resume()
        assert client.status()["reason"] == ""
        shell.end()
        shell.run(CHECK)


def _save_and_resume(bench: Bench, shell: Shell, image: Path) -> Shell:
    shell.run("echo remember > /tmp/remember")
    with bench.client() as client:
        assert client.save()["state"] == "saved"
    assert not is_running(bench.home, bench.uuid)
    saved = bench.load()
    assert saved.state is MachineState.SAVED
    state = Path(saved.folder, saved.state_file)
    assert state.exists()
    _changed_disks_are_refused(bench, image)
    start(bench.home, bench.uuid)
    shell = bench.shell()
    assert shell.run("cat /tmp/remember") == "remember"
    shell.run(CHECK)
    assert bench.load().state is MachineState.RUNNING
    assert not state.exists()
    return shell


def _changed_disks_are_refused(bench: Bench, image: Path) -> None:
    copy = image.with_suffix(".copy")
    shutil.copy2(image, copy)
    with drivebay.open(image, writable=True) as disk:
        disk.write(0, b"changed behind the guest's back")
        disk.flush()
    with pytest.raises(StorageError, match="has changed since") as caught:
        start(bench.home, bench.uuid)
    assert caught.value.kind is ErrorKind.STATE
    copy.replace(image)


def _reset(bench: Bench, shell: Shell) -> None:
    with bench.client() as client:
        client.reset()
        shell.wait_for("@@shell")
        assert shell.run("cat /tmp/remember", fails=True).startswith("cat:")
        with pytest.raises(StorageError, match="still runs after"):
            client.wait_stopped(0)


def _qemu_dies(bench: Bench, image: Path) -> None:
    with bench.client() as client:
        os.kill(client.status()["pid"], signal.SIGKILL)
        assert client.wait_stopped(60) == {"state": "aborted"}
    assert bench.load().state is MachineState.ABORTED
    assert not is_running(bench.home, bench.uuid)
    with drivebay.open(image, writable=True) as disk:  # nobody holds it any more
        disk.verify_writable()
    command = [sys.executable, "-m", "drivebay", "--home", bench.home.folder]
    done = subprocess.run(
        [*command, "machine", "status", "bench", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert '"aborted"' in done.stdout
    with pytest.raises(StorageError, match="does not run"):
        connect(bench.home, bench.uuid)
