"""Each write mode through a machine's life, as its guest sees it (specification, table 4.2)."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

import drivebay
from drivebay.chain import open_chain
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.model import Controller, Slot
from drivebay.model import Severity
from drivebay.qemu import TinyGuest
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.registry.medium import DeviceType, Medium, MediumType
from drivebay.service.clones import clone_machine
from drivebay.service.machines.drives import attach, detach
from drivebay.service.machines.removal import remove_machine
from drivebay.service.machines.request import AttachRequest, Place
from drivebay.service.merging import consolidate
from drivebay.service.runtime import start
from drivebay.service.snapshots import delete_snapshot, restore_snapshot, take_snapshot
from support.guest_shell import MIB, Bench, Shell, new_bench

pytestmark = [pytest.mark.xdist_group("guest"), pytest.mark.timeout(900)]

SECTOR = 512
CUTS = 6

# Slot, file, MiB (by which the guest tells its disks), write mode.
DISKS = (
    (0, "normal.vdi", 8, MediumType.NORMAL),
    (1, "immutable.vmdk", 9, MediumType.IMMUTABLE),
    (2, "through.img", 10, MediumType.WRITETHROUGH),
    (3, "multi.qcow2", 11, MediumType.MULTIATTACH),
    (4, "shared.vdi", 12, MediumType.SHAREABLE),
)
NORMAL, IMMUTABLE, THROUGH, MULTI, SHARED = (name.partition(".")[0] for _, name, _, _ in DISKS)
SIZES = {name.partition(".")[0]: size * MIB for _, name, size, _ in DISKS}
PORTS = {name.partition(".")[0]: port for port, name, _, _ in DISKS}
CD = Slot("SATA", 5)
OTHERS = (IMMUTABLE, MULTI, SHARED)  # what the second machine has, too

NAMES = "for d in /sys/block/sd*; do ln -sf /dev/${d##*/} /tmp/$(($(cat $d/size) / 2048)); done"
WRITE = "printf %-512s {text} | dd of=/tmp/{mib} bs=512 seek={at} conv=notrunc,fsync 2>/dev/null"
READ = (
    "echo 3 > /proc/sys/vm/drop_caches; dd if=/tmp/{mib} bs=512 skip={at} count=1 2>/dev/null | tr -d '\\0'"
)
# Every write is durable before the guest tells its number.
LOAD = (
    "n=0; while [ $n -lt 250 ]; do n=$((n+1)); for d in 8 11; do "
    "printf %-512s $n | dd of=/tmp/$d bs=512 seek=$((n * 8)) conv=notrunc,fsync 2>/dev/null; done; "
    "echo m$n; done"
)

Contents = dict[str, str]


@pytest.fixture
def one(guest: TinyGuest) -> Iterator[Bench]:
    """A machine with a disk of each write mode, and a CD."""
    with new_bench(guest, Controller("SATA", "IntelAhci", 8)) as bench:
        (bench.folder / "cd.iso").write_bytes(b"cd".ljust(4 * MIB, b"\0"))
        bench.attach(CD, bench.folder / "cd.iso", DeviceType.DVD, 4 * MIB)
        bench.save()
        for port, file, mib, kind in DISKS:
            fixed = "fixed" if kind is MediumType.SHAREABLE else None
            drivebay.create(bench.folder / file, size=mib * MIB, variant=fixed)
            _attach(bench, port, bench.folder / file, kind)
        yield bench


@pytest.fixture
def two(one: Bench) -> Iterator[Bench]:
    """Another machine, on some of the same disks."""
    folder = one.folder / "two"
    folder.mkdir()
    bench = Bench(one.home, folder, one.guest, name="two")
    bench.controllers = one.controllers
    bench.save()
    for name in (NORMAL, *OTHERS):
        _attach(bench, PORTS[name], _base(one, name))
    try:
        yield bench
    finally:
        bench.off()


def _attach(bench: Bench, port: int, path: Path, kind: MediumType | None = None) -> None:
    request = AttachRequest(Place("SATA", port, 0), medium=str(path), device=DeviceType.DISK, type=kind)
    attach(bench.home, bench.name, request)


def _base(bench: Bench, name: str) -> Path:
    return Path(bench.folder, next(file for _, file, _, _ in DISKS if file.startswith(name)))


def _boot(bench: Bench) -> Shell:
    shell = bench.start()
    shell.run(NAMES)
    return shell


def _power_off(bench: Bench) -> None:
    with bench.client() as client:
        client.kill()


def _write(shell: Shell, text: str, *names: str, at: int = 1) -> None:
    for name in names or tuple(SIZES):
        shell.run(WRITE.format(text=text, mib=SIZES[name] // MIB, at=at))


def _seen(shell: Shell, *names: str, at: int = 1) -> Contents:
    """What the guest reads from each of its disks, past its cache."""
    return {
        name: shell.run(READ.format(mib=SIZES[name] // MIB, at=at)).strip() for name in names or tuple(SIZES)
    }


def _chain(home: Home, machine: str | UUID, name: str) -> list[Medium]:
    with open_registry(home) as registry, registry.view() as view:
        attachments = store.load(view, machine).hardware.attachments
        medium = next(at.medium for at in attachments if at.slot == Slot("SATA", PORTS[name]))
        assert medium is not None
        return list(view.tree.chain(medium))


def _held(home: Home, machine: str | UUID, at: int = 1) -> Contents:
    """What the images of a machine that is off hold."""
    return {name: _text(_chain(home, machine, name), at) for name in SIZES}


def _text(chain: list[Medium], at: int) -> str:
    with Disk(open_chain(chain[0].path, parents=[one.path for one in chain[1:]]).layers) as disk:
        return disk.read(at * SECTOR, SECTOR).rstrip(b"\0").decode().strip()


def _hashes(bench: Bench) -> dict[str, str]:
    """Of the base images that no machine may write."""
    return {name: hashlib.sha256(_base(bench, name).read_bytes()).hexdigest() for name in (IMMUTABLE, MULTI)}


def _all(text: str, **but: str) -> Contents:
    return dict.fromkeys(SIZES, text) | but


def test_e62_two_machines_on_the_same_disks(one: Bench, two: Bench) -> None:
    before = _hashes(one)
    first = _boot(one)
    _a_normal_disk_is_for_one_machine(one, two)
    detach(two.home, two.name, Place("SATA", PORTS[NORMAL], 0))
    second = _boot(two)
    _write(first, "first", IMMUTABLE, MULTI)
    _write(second, "second", IMMUTABLE, MULTI)
    assert _seen(first, IMMUTABLE, MULTI) == {IMMUTABLE: "first", MULTI: "first"}
    assert _seen(second, IMMUTABLE, MULTI) == {IMMUTABLE: "second", MULTI: "second"}
    _write(first, "of-one", SHARED, at=1)
    _write(second, "of-two", SHARED, at=2)
    for shell in (first, second):
        assert (_seen(shell, SHARED, at=1), _seen(shell, SHARED, at=2)) == (
            {SHARED: "of-one"},
            {SHARED: "of-two"},
        )
    _power_off(two)
    _power_off(one)
    assert _hashes(one) == before


def _a_normal_disk_is_for_one_machine(one: Bench, two: Bench) -> None:
    with pytest.raises(StorageError, match=r"normal\.vdi.*in use") as refused:
        start(two.home, two.name)
    assert refused.value.kind is ErrorKind.IN_USE
    with one.client() as client:
        assert f"process {client.status()['worker']} " in str(refused.value)


def test_each_write_mode_through_a_machines_life(one: Bench) -> None:
    before = _hashes(one)
    shell = _boot(one)
    _write(shell, "one")
    assert shell.run("head -c 2 /dev/sr0") == "cd"
    assert "written" not in shell.run("echo x > /dev/sr0 && sync && echo written", fails=True)
    with one.client() as client:
        client.reset()
    shell.wait_for("@@shell")
    shell.run(NAMES)
    assert _seen(shell) == _all("one")  # a reboot changes nothing
    _power_off(one)
    assert _held(one.home, one.name) == _all("one")  # nor does the power

    shell = _boot(one)
    assert _seen(shell) == _all("one", immutable="")
    _write(shell, "two")
    take_snapshot(one.home, one.name, "snapshot", memory=False)
    _write(shell, "three")
    assert _seen(shell) == _all("three")
    _power_cuts(one, shell)
    _power_off(one)
    kept = {THROUGH: "three", SHARED: "three"}
    _clones(one, kept)

    restore_snapshot(one.home, one.name, "snapshot")
    assert _held(one.home, one.name) == _all("two", **kept)
    shell = _boot(one)  # forgets what was written since the snapshot, which is nothing
    assert _seen(shell) == _all("two", **kept)
    assert shell.run("head -c 2 /dev/sr0") == "cd"
    _write(shell, "four")
    delete_snapshot(one.home, one.name, "snapshot")
    assert _seen(shell) == _all("four")
    _power_off(one)
    consolidate(one.home)
    assert _held(one.home, one.name) == _all("four")
    assert [len(_chain(one.home, one.name, name)) for name in (NORMAL, THROUGH, MULTI, SHARED)] == [
        1,
        1,
        2,
        1,
    ]
    assert _hashes(one) == before


def _clones(one: Bench, kept: Contents) -> None:
    """A full clone shows all; a linked one what the snapshot holds, on the same disks where that is none."""
    full = clone_machine(one.home, one.name, "full").machine
    assert _held(one.home, full.uuid) == _all("three")
    assert {len(_chain(one.home, full.uuid, name)) for name in SIZES} == {1}
    types = {name: _chain(one.home, full.uuid, name)[0].type for name in SIZES}
    assert types[IMMUTABLE] is MediumType.NORMAL
    linked = clone_machine(one.home, one.name, "linked", snapshot="snapshot", linked=True).machine
    assert _held(one.home, linked.uuid) == _all("two", **kept)
    for name in (THROUGH, SHARED):
        assert _chain(one.home, linked.uuid, name) == _chain(one.home, one.name, name)
    for name in (NORMAL, IMMUTABLE, MULTI):
        snapshot = _chain(one.home, one.name, name)[1]
        assert _chain(one.home, linked.uuid, name)[1] == snapshot
    remove_machine(one.home, "linked")


def _power_cuts(one: Bench, shell: Shell) -> None:
    """What the guest had flushed is in the files, whenever the process that writes them stops."""
    chance = random.Random(1)
    chains = {name: _chain(one.home, one.name, name) for name in (NORMAL, MULTI)}
    shell.send(LOAD)
    shell.wait_for("m1")
    flushed = 1
    for number in range(CUTS):
        time.sleep(chance.random())
        flushed = max(flushed, *map(int, re.findall(r"m(\d+)\n", shell.wait_for("m"))))
        copies = _copied_while_stopped(one, chains, one.folder / f"cut{number}")
        for name, paths in copies.items():
            _require_flushed(paths, flushed, name)
    assert flushed > CUTS
    shell.end(600)
    _write(shell, "three")


def _copied_while_stopped(one: Bench, chains: dict[str, list[Medium]], folder: Path) -> dict[str, list[Path]]:
    """The images as a worker leaves them that ends at this instant, whatever it does."""
    folder.mkdir()
    with one.client() as client:
        worker = client.status()["worker"]
    os.kill(worker, signal.SIGSTOP)
    try:
        return {
            name: [Path(shutil.copy(medium.path, folder)) for medium in chain]
            for name, chain in chains.items()
        }
    finally:
        os.kill(worker, signal.SIGCONT)


def _require_flushed(paths: list[Path], flushed: int, name: str) -> None:
    findings = drivebay.check(paths[0], search=[paths[0].parent])
    assert [one for one in findings if one.severity is Severity.ERROR] == [], name
    with Disk(open_chain(str(paths[0]), parents=[str(path) for path in paths[1:]]).layers) as disk:
        for n in range(1, flushed + 1):
            assert disk.read(n * 8 * SECTOR, SECTOR).strip() == str(n).encode(), (name, n)
