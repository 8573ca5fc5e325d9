"""A tree of snapshots, made while a guest runs, is restored and deleted in any order, without losing a byte.

The guest itself says what each state holds: it hashes its disks before each snapshot.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

import drivebay
from drivebay.machines import store
from drivebay.machines.model import Controller, Hardware, Machine, Slot
from drivebay.qemu import TinyGuest
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import MediaTree, Medium, MediumType
from drivebay.service.clones import clone_machine
from drivebay.service.disks import open_disk
from drivebay.service.merging import consolidate
from drivebay.service.options import OpenOptions
from drivebay.service.snapshots import delete_snapshot, restore_snapshot, take_snapshot
from support.guest_shell import MIB, Bench, Shell

pytestmark = [pytest.mark.xdist_group("guest"), pytest.mark.timeout(1200)]

ORDERS = 20
CRASHES = 8
NORMAL = (Slot("SATA", 0), Slot("SATA", 1))
SIZES = (8 * MIB, 9 * MIB, 10 * MIB)  # by which the guest tells its disks
CURRENT = "the current state"

Hashes = dict[Slot, str]


@dataclass
class Lab:
    """A machine with its tree, and a clone; what each state's disks hold, and a copy of all files."""

    bench: Bench
    states: dict[str, Hashes]
    clone: UUID
    clone_hashes: Hashes
    copy: Path

    @property
    def home(self) -> Home:
        return self.bench.home

    def start_over(self) -> None:
        """All files as they were when the tree was made."""
        shutil.rmtree(self.bench.folder)
        shutil.copytree(self.copy, self.bench.folder, symlinks=True)


@pytest.fixture(scope="module")
def lab(guest: TinyGuest) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="drivebay-"))
    bench = Bench(find_home(str(folder / "home")), folder, guest)
    bench.controllers = (Controller("SATA", "IntelAhci", 4),)
    bench.disk(NORMAL[0], "normal.vdi", SIZES[0])
    bench.disk(NORMAL[1], "other.qcow2", SIZES[1])
    bench.disk(Slot("SATA", 2), "through.vdi", SIZES[2])
    bench.media[2] = replace(bench.media[2], type=MediumType.WRITETHROUGH)
    bench.save()
    try:
        states = _grow(bench)
        clone = clone_machine(bench.home, str(bench.uuid), "twin", snapshot="s3", linked=True).machine
        copy = folder.with_name(folder.name + ".copy")
        shutil.copytree(folder, copy, symlinks=True)
        yield Lab(bench, states, clone.uuid, dict(states["s3"]), copy)
        shutil.rmtree(copy)
    finally:
        bench.off()
        shutil.rmtree(folder)


def _grow(bench: Bench) -> dict[str, Hashes]:
    """Five levels, and two branches: s1-s5 in a line, b3 and b4 on s2, c4 on s3."""
    states: dict[str, Hashes] = {}
    shell = bench.start()
    for level in range(1, 6):
        _snap(bench, shell, f"s{level}", states)
    _power_off(bench)
    for origin, names in (("s2", ("b3", "b4")), ("s3", ("c4",))):
        restore_snapshot(bench.home, str(bench.uuid), origin)
        shell = bench.start()
        for name in names:
            _snap(bench, shell, name, states)
        _scribble(shell, random.Random(f"after {names}"))
        states[CURRENT] = _hashes(shell)
        _power_off(bench)
    return states


def _snap(bench: Bench, shell: Shell, name: str, states: dict[str, Hashes]) -> None:
    _scribble(shell, random.Random(name))
    states[name] = _hashes(shell)
    take_snapshot(bench.home, str(bench.uuid), name, memory=False)


def _scribble(shell: Shell, chance: random.Random) -> None:
    """The guest writes here and there on all disks, and flushes."""
    writes = [
        f"dd if=/dev/urandom of={_device(size)} bs=4k count={chance.randint(1, 60)} "
        f"seek={chance.randrange(size // 4096 - 60)} conv=notrunc,fsync 2>/dev/null"
        for size in SIZES
        for _ in range(4)
    ]
    shell.run(" && ".join(writes))


def _device(size: int) -> str:
    """In the guest's shell, the disk of this size: the order of names changes from boot to boot."""
    return f"/dev/$(cd /sys/block && for d in sd*; do grep -qx {size // 512} $d/size && echo $d; done)"


def _hashes(shell: Shell) -> Hashes:
    disks = [_device(size) for _, size in zip(NORMAL, SIZES, strict=False)]
    said = shell.run(f"sync; sha256sum {' '.join(disks)}")
    return {slot: line.split()[0] for slot, line in zip(NORMAL, said.splitlines(), strict=True)}


def _power_off(bench: Bench) -> None:
    with bench.client() as client:
        client.kill()


def _verify(lab: Lab, deleted: set[str], current: str) -> None:
    """Every state that should be left holds what the guest saw in it."""
    with open_registry(lab.home) as registry, registry.view() as view:
        machine, clone = store.load(view, lab.bench.uuid), store.load(view, lab.clone)
        tree = view.tree
    assert not [medium for medium in tree.media.values() if not Path(medium.path).exists()]
    assert {snapshot.name for snapshot in machine.snapshots} == set(lab.states) - {CURRENT} - deleted
    for snapshot in machine.snapshots:
        assert _read(snapshot.hardware, tree) == lab.states[snapshot.name], snapshot.name
    assert _read(machine.hardware, tree) == lab.states[current], current
    assert _read(clone.hardware, tree) == lab.clone_hashes
    _no_orphans(machine, {medium.path for medium in tree.media.values()})


def _read(hardware: Hardware, tree: MediaTree) -> Hashes:
    return {
        at.slot: _checksum(list(tree.chain(at.medium)))
        for at in hardware.attachments
        if at.slot in NORMAL and at.medium is not None
    }


def _checksum(chain: list[Medium]) -> str:
    top, *parents = chain
    paths, formats = [medium.path for medium in parents], [medium.format for medium in parents]
    with open_disk(top.path, OpenOptions(parents=paths, parent_formats=formats)) as disk:
        return drivebay.checksum(disk)


def _no_orphans(machine: Machine, known: set[str]) -> None:
    images = {str(path) for path in Path(machine.snapshot_folder).iterdir()}
    assert images <= known, "images that nobody knows"


@pytest.mark.parametrize("seed", range(ORDERS))
def test_restored_and_deleted_in_a_random_order(lab: Lab, seed: int) -> None:
    lab.start_over()
    chance = random.Random(seed)
    left, deleted, current = sorted(set(lab.states) - {CURRENT}), set[str](), CURRENT
    while left:
        name = chance.choice(left)
        if chance.random() < 0.3:
            restore_snapshot(lab.home, str(lab.bench.uuid), name)
            current = name
        else:
            delete_snapshot(lab.home, str(lab.bench.uuid), name)
            left.remove(name)
            deleted.add(name)
        if chance.random() < 0.7:
            consolidate(lab.home)
        _verify(lab, deleted, current)
    consolidate(lab.home)
    _verify(lab, deleted, current)


@pytest.mark.parametrize("seed", range(CRASHES))
def test_a_crash_at_any_point_leaves_a_correct_tree(lab: Lab, seed: int) -> None:
    lab.start_over()
    chance = random.Random(f"crash {seed}")
    left, deleted, current = sorted(set(lab.states) - {CURRENT}), set[str](), CURRENT
    while left:
        name = chance.choice(left)
        restoring = chance.random() < 0.3
        before = _machine(lab).hardware
        killed = _killed(chance, restore_snapshot if restoring else delete_snapshot, lab, name)
        if restoring and (not killed or _machine(lab).hardware != before):
            current = name
        if not restoring and (not killed or not _has(lab, name)):
            left.remove(name)
            deleted.add(name)
        _verify(lab, deleted, current)


def _killed(chance: random.Random, do: Callable[[Home, str, str], object], lab: Lab, name: str) -> bool:
    """Whether a process that does it, and then tidies up, was killed before its end."""

    def work() -> None:
        do(lab.home, str(lab.bench.uuid), name)
        consolidate(lab.home)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(chance.choice([0.02, 0.05, 0.1, 0.2, 0.4, 5]) * chance.random())
    process.kill()
    process.join()
    return process.exitcode != 0


def _machine(lab: Lab) -> Machine:
    with open_registry(lab.home) as registry, registry.view() as view:
        return store.load(view, lab.bench.uuid)


def _has(lab: Lab, name: str) -> bool:
    return name in {snapshot.name for snapshot in _machine(lab).snapshots}
