"""A machine with a disk on every kind of controller: written, started again, read from all sides."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import KINDS, Bus, ControllerKind
from drivebay.machines.model import Attachment, Controller, Machine, MachineState, Slot
from drivebay.qemu import TinyGuest
from drivebay.qemu.identity import default_serial
from drivebay.registry.medium import DeviceType, MediaTree
from drivebay.service.runtime.plan import disk_spec, facts_of
from drivebay.service.runtime.record import read_machine
from support.guest_shell import MIB, Bench, Shell, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

ROWS = [
    kind
    for kind in KINDS.values()
    if (kind.qemu or kind.closest) and DeviceType.DISK in kind.accepts and kind.name not in ("PIIX3", "ICH6")
]
LISTING = "for b in /sys/block/*; do echo ${b##*/} $(cat $b/size); done"


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest) as bench:
        yield bench


def _controller(kind: ControllerKind) -> Controller:
    substitute = "" if kind.qemu else kind.closest[0]
    return Controller(f"the {kind.name}", kind.name, kind.ports[1], substitute=substitute)


def _last_port(kind: ControllerKind) -> int:
    """A port of the last adapter that QEMU needs for the promised slots."""
    return min(kind.ports[1], 30) - 1 if kind.bus not in (Bus.USB, Bus.IDE) else kind.ports[1] - 1


@pytest.mark.timeout(1200)
def test_every_controller_row_in_two_boots(bench: Bench) -> None:
    bench.controllers = (*map(_controller, ROWS), Controller("floppy", "I82078", 1))
    disks: dict[Slot, Path] = {}
    for number, kind in enumerate(ROWS):
        slot = Slot(f"the {kind.name}", _last_port(kind), kind.devices - 1)
        # Each has a size of its own, by which the guest tells it from the others.
        disks[slot] = bench.disk(
            slot, f"{kind.name}.vdi", (8 + number) * MIB, nonrotational=True, discard=True
        )
    floppy = bench.folder / "floppy.img"
    floppy.write_bytes(bytes(1440 << 10))
    bench.attach(Slot("floppy"), floppy, DeviceType.FLOPPY, 1440 << 10)
    bench.save()

    shell = bench.start()
    names = _wait_for_disks(shell, len(disks))
    sums = {}
    for number, slot in enumerate(disks):
        device = names[(8 + number) * MIB]
        sums[slot] = shell.run(_write(device)).split()[-2]
        if slot.controller == "the IntelAhci":
            serial = default_serial(facts_of(str(disks[slot]), "").uuid, slot.port)
            assert shell.run(f"cat /sys/block/{device}/queue/rotational") == "0"
            page = shell.run(f"tr -dc 'A-Za-z0-9-' < /sys/block/{device}/device/vpd_pg80")
            assert serial in page
            assert "VBOX HARDDISK" in shell.run(f"cat /sys/block/{device}/device/model")
    floppy_sum = shell.run(
        "dd if=/dev/urandom of=/dev/fd0 bs=18k count=4 2>/dev/null; sync; "
        "dd if=/dev/fd0 bs=18k count=4 2>/dev/null | sha256sum"
    ).split()[0]
    with bench.client() as client:
        assert client.stop(60) == {"state": "powered-off"}
    assert bench.load().state is MachineState.POWERED_OFF
    for slot, path in disks.items():
        with drivebay.open(path) as disk:
            assert hashlib.sha256(disk.read(3 * MIB - 512, MIB)).hexdigest() == sums[slot], slot
    assert hashlib.sha256(floppy.read_bytes()[: 72 << 10]).hexdigest() == floppy_sum

    shell = bench.start()
    names = _wait_for_disks(shell, len(disks))
    for number, slot in enumerate(disks):
        device = names[(8 + number) * MIB]
        assert shell.run(_read(device)).split()[0] == sums[slot], slot
    with bench.client() as client, pytest.raises(StorageError, match="NVMe") as caught:
        client.save()
    assert caught.value.kind is ErrorKind.UNSUPPORTED
    _check_plugging(bench, shell)


def _check_plugging(bench: Bench, shell: Shell) -> None:
    """In the same boot: disks come and go where they can."""
    home, uuid = bench.home, bench.uuid
    machine, _ = read_machine(home, uuid, home.run_folder(uuid))
    for number, kind in enumerate(("VirtioSCSI", "USB", "virtio-blk")):
        _plug_and_unplug(bench, shell, machine, Slot(f"the {kind}", 1), (40 + number) * MIB)
    sata = Attachment(Slot("the IntelAhci", 3), DeviceType.DISK, bench.media[0].uuid, hotpluggable=True)
    with bench.client() as client, pytest.raises(StorageError, match="don't hot-plug") as caught:  # E7
        client.plug(sata, None)
    assert caught.value.kind is ErrorKind.STATE


def _plug_and_unplug(bench: Bench, shell: Shell, machine: Machine, slot: Slot, size: int) -> None:
    path = bench.folder / f"{slot.controller}-plugged.vdi"
    drivebay.create(path, size=size)
    medium = bench.medium(path, size=size)
    attachment = Attachment(slot, DeviceType.DISK, medium.uuid)

    def is_there() -> bool:
        return size in _names(shell.run(LISTING))

    with bench.client() as client:
        client.plug(attachment, disk_spec(machine, MediaTree.of([medium]), attachment))
        until(is_there, f"{slot}: the guest finds the disk")
        wanted = shell.run(_write(_names(shell.run(LISTING))[size])).split()[-2]
        with pytest.raises(StorageError, match="not marked hot-pluggable"):  # E8
            client.unplug(slot)
        client.unplug(slot, force=True)
        until(lambda: not is_there(), f"{slot}: the disk is gone")
        assert str(slot) not in client.status()["disks"]
    with drivebay.open(path) as disk:
        assert hashlib.sha256(disk.read(3 * MIB - 512, MIB)).hexdigest() == wanted


def _wait_for_disks(shell: Shell, count: int) -> dict[int, str]:
    """Some drivers look for disks after they have been loaded."""
    wanted = {(8 + number) * MIB for number in range(count)}
    with contextlib.suppress(AssertionError):
        until(lambda: wanted <= _names(shell.run(LISTING)).keys(), "all disks are there")
    found = _names(shell.run(LISTING))
    assert [size // MIB for size in wanted - found.keys()] == []
    return found


def _names(listing: str) -> dict[int, str]:
    """The guest's names of disks by their sizes."""
    pairs = (line.split() for line in listing.splitlines())
    return {int(sectors) * 512: name for name, sectors in pairs}


def _write(device: str) -> str:
    """Random bytes that begin and end within blocks; their checksum, read back from the device itself."""
    return (
        "dd if=/dev/urandom of=/tmp/r bs=512 count=2048 2>/dev/null; "
        f"dd if=/tmp/r of=/dev/{device} bs=512 seek={(3 * MIB - 512) // 512} conv=fsync 2>/dev/null; "
        f"echo 3 > /proc/sys/vm/drop_caches; {_read(device)}"
    )


def _read(device: str) -> str:
    return f"dd if=/dev/{device} bs=512 skip={(3 * MIB - 512) // 512} count=2048 2>/dev/null | sha256sum"
