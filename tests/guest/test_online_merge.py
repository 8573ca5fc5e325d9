"""Snapshots of a running guest, taken and deleted while it writes and verifies all that it wrote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import drivebay
from drivebay.machines.model import Controller, Slot
from drivebay.qemu import TinyGuest
from drivebay.service.merging import consolidate
from drivebay.service.runtime import is_running
from drivebay.service.snapshots import delete_snapshot, take_snapshot
from support.guest_shell import MIB, Bench, Shell, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

SATA = Slot("SATA", 0)
FIRST, COUNT = 64, 4096  # sectors that are written
# Each write is durable, and read back from the disk, as is one that was written long ago.
LOAD = (
    "(i=0; while :; do i=$((i+1)); for n in $i $((i/2+1)); do at=$((n*37%4096+64)); text=$(printf %08d $n); "
    "[ $n = $i ] && printf $text | dd of=/dev/sda bs=512 seek=$at conv=notrunc,fsync 2>/dev/null; "
    "echo 1 > /proc/sys/vm/drop_caches; "
    "got=$(dd if=/dev/sda bs=512 skip=$at count=1 2>/dev/null | tr -d '\\0'); "
    "[ $got = $text ] || [ $i -gt 4000 ] || echo $i $n $got > /tmp/bad; done; "
    "echo $i > /tmp/now; mv /tmp/now /tmp/count; [ -e /tmp/stop ] && break; done; touch /tmp/stopped) &"
)


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest, Controller("SATA", "IntelAhci", 6, host_io_cache=True)) as bench:
        bench.disk(SATA, "disk.vdi", 64 * MIB)
        bench.save()
        yield bench


def _goes_on(shell: Shell) -> None:
    before = int(shell.run("cat /tmp/count"))
    until(lambda: int(shell.run("cat /tmp/count")) > before + 10, "the load goes on")
    assert shell.run("cat /tmp/bad 2>/dev/null || echo fine") == "fine"


@pytest.mark.timeout(600)
def test_a_guest_verifies_what_it_writes_while_snapshots_come_and_go(bench: Bench) -> None:
    shell = bench.start()
    shell.run(LOAD)
    until(lambda: int(shell.run("cat /tmp/count 2>/dev/null || echo 0")) > 20, "the load")
    base = bench.chain(SATA)

    disks = take_snapshot(bench.home, "bench", "disks", memory=False)
    _goes_on(shell)
    memory = take_snapshot(bench.home, "bench", "memory")
    _goes_on(shell)
    assert len(bench.chain(SATA)) == 3
    delete_snapshot(bench.home, "bench", "memory")
    newest = consolidate(bench.home, machine="bench")
    _goes_on(shell)
    assert not newest.left
    assert len(bench.chain(SATA)) == 2
    delete_snapshot(bench.home, "bench", "disks")
    oldest = consolidate(bench.home, machine="bench")
    _goes_on(shell)
    print(f"disks {disks.paused * 1000:.0f} ms, with memory {memory.paused * 1000:.0f} ms")
    print(f"merges {newest.longest_hold * 1000:.0f} ms, {oldest.longest_hold * 1000:.0f} ms at most")
    assert not oldest.left
    assert bench.chain(SATA) == base
    assert not list((bench.folder / "machine").rglob("*.vdi"))
    assert disks.paused < 0.1

    shell.run("touch /tmp/stop")
    until(lambda: shell.run("ls /tmp/stopped 2>/dev/null || echo no") != "no", "the end of the load")
    last = int(shell.run("cat /tmp/count"))
    assert shell.run("cat /tmp/bad 2>/dev/null || echo fine") == "fine"
    with bench.client() as client:
        client.kill()
    until(lambda: not is_running(bench.home, bench.uuid), "the end")
    expected = {number * 37 % COUNT + FIRST: number for number in range(1, last + 1)}
    with drivebay.open(base[0]) as disk:
        for sector, number in expected.items():
            assert disk.read(sector * 512, 8) == b"%08d" % number
    _starting_tidies(bench, base)


def _starting_tidies(bench: Bench, base: list[str]) -> None:
    """What was left by a snapshot that was deleted is merged beside the next start's guest."""
    take_snapshot(bench.home, "bench", "off")
    delete_snapshot(bench.home, "bench", "off")
    assert len(bench.chain(SATA)) == 2
    shell = bench.start()
    until(lambda: bench.chain(SATA) == base, "the merge")
    shell.run("printf after | dd of=/dev/sda bs=512 seek=1 conv=notrunc,fsync 2>/dev/null")
    with bench.client() as client:
        client.kill()
    until(lambda: not is_running(bench.home, bench.uuid), "the end")
    with drivebay.open(base[0]) as disk:
        assert disk.read(512, 5) == b"after"
