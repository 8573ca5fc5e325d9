"""Snapshots of a running guest: what it had written is kept, what it wrote since is undone (6.3)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import drivebay
from drivebay.chain import open_chain
from drivebay.engine.disk import Disk
from drivebay.errors import StorageError
from drivebay.machines.model import Attachment, Controller, MachineState, Slot
from drivebay.qemu import TinyGuest
from drivebay.registry.medium import DeviceType, MediumType
from drivebay.service.runtime import is_running, start
from drivebay.service.snapshots import restore_snapshot, take_snapshot
from support.guest_shell import MIB, Bench, Shell, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

SATA = Slot("SATA", 0)
SECOND = Slot("SATA", 1)
THROUGH = Slot("SATA", 2)
# Linux finds the disks in any order: their sizes tell them.
NAMES = (
    "for d in /sys/block/sd*; do "
    "case $(cat $d/size) in 16384) n=system;; 18432) n=data;; *) n=through;; esac; "
    "ln -s /dev/${d##*/} /tmp/$n; done"
)
WRITE = "printf {} | dd of=/tmp/{} bs=512 seek={} conv=notrunc 2>/dev/null && sync"
READ = "dd if=/tmp/{} bs=512 skip={} count=1 2>/dev/null | tr -d '\\0'"
# Writes without an end, each write durable and then read back from the disk.
LOAD = (
    "(i=0; while :; do i=$((i+1)); at=$((i%512+64)); text=$(printf %08d $i); "
    "printf $text | dd of=/tmp/data bs=512 seek=$at conv=notrunc,fsync 2>/dev/null; "
    "echo 1 > /proc/sys/vm/drop_caches; "
    "got=$(dd if=/tmp/data bs=512 skip=$at count=1 2>/dev/null | tr -d '\\0'); "
    "[ $got = $text ] || echo bad > /tmp/bad; echo $i > /tmp/now; mv /tmp/now /tmp/count; done) &"
)


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest, Controller("SATA", "IntelAhci", 6, host_io_cache=True)) as bench:
        bench.disk(SATA, "system.vdi", 8 * MIB)
        bench.disk(SECOND, "data.qcow2", 9 * MIB)
        path = bench.folder / "through.vdi"
        drivebay.create(path, size=10 * MIB)
        through = bench.medium(path, size=10 * MIB, kind=MediumType.WRITETHROUGH)
        bench.attachments.append(Attachment(THROUGH, DeviceType.DISK, through.uuid))
        bench.save()
        yield bench


@pytest.mark.timeout(600)
def test_snapshots_of_a_guest_that_writes_without_an_end(bench: Bench) -> None:
    shell = bench.start()
    shell.run(NAMES)
    shell.run(WRITE.format("clean", "system", 1))
    shell.run(WRITE.format("clean", "through", 1))
    shell.run(LOAD)
    until(lambda: int(shell.run("cat /tmp/count 2>/dev/null || echo 0")) > 5, "the load")

    disks = take_snapshot(bench.home, "bench", "disks", memory=False)
    print(f"disks only: {disks.paused * 1000:.1f} ms")
    assert (disks.kind, disks.warnings, disks.paused < 2) == ("disks", (), True)
    shell.run(WRITE.format("virus", "system", 1))
    shell.run("echo remembered > /tmp/note")
    online = take_snapshot(bench.home, "bench", "online")
    assert online.memory > MIB
    assert ["write" in warning for warning in online.warnings] == [True]
    live = take_snapshot(bench.home, "bench", "live", live=True)
    assert live.paused < online.paused + 1
    print(f"pauses: {disks.paused:.3f} s, {online.paused:.3f} s, {live.paused:.3f} s")
    shell.run(WRITE.format("worse", "system", 1))
    shell.run(WRITE.format("worse", "through", 1))
    shell.run("echo forgotten > /tmp/note")
    before = int(shell.run("cat /tmp/count"))
    until(lambda: int(shell.run("cat /tmp/count")) > before + 5, "the load goes on")
    assert shell.run("cat /tmp/bad 2>/dev/null || echo fine") == "fine"
    assert [len(bench.chain(slot)) for slot in (SATA, SECOND, THROUGH)] == [4, 4, 1]
    with pytest.raises(StorageError, match="stop"):
        restore_snapshot(bench.home, "bench", "online")

    with bench.client() as client:
        client.kill()
    until(lambda: not is_running(bench.home, bench.uuid), "the end")
    assert restore_snapshot(bench.home, "bench", "online").machine.state is MachineState.SAVED
    shell = _resumed(bench)
    assert shell.run("cat /tmp/note") == "remembered"
    shell.run("echo 1 > /proc/sys/vm/drop_caches")
    assert shell.run(READ.format("system", 1)) == "virus"
    before = int(shell.run("cat /tmp/count"))
    until(lambda: int(shell.run("cat /tmp/count")) > before + 5, "the load goes on, from where it was")
    assert shell.run("cat /tmp/bad 2>/dev/null || echo fine") == "fine"

    with bench.client() as client:
        client.kill()
    until(lambda: not is_running(bench.home, bench.uuid), "the end")
    assert restore_snapshot(bench.home, "bench", "disks").machine.state is MachineState.POWERED_OFF
    assert _first(bench, SATA) == b"clean"
    assert _first(bench, THROUGH) == b"worse"


def _resumed(bench: Bench) -> Shell:
    start(bench.home, bench.uuid)
    return bench.shell()


def _first(bench: Bench, slot: Slot) -> bytes:
    paths = bench.chain(slot)
    with Disk(open_chain(paths[0], search=paths).layers) as disk:
        return disk.read(512, 16).rstrip(b"\0")
