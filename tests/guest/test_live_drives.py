"""Drives attached, detached and filled while a real guest runs (specification, 1.8, 10 and 11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import BandwidthGroup, Controller, Slot
from drivebay.machines.slots import attachment_at
from drivebay.machines.store import save
from drivebay.qemu import TinyGuest
from drivebay.registry.database import open_registry
from drivebay.registry.medium import DeviceType, MediumType
from drivebay.service.machines import hardware
from drivebay.service.machines.drives import attach, detach, eject
from drivebay.service.machines.request import AttachRequest, Place
from support.guest_shell import MIB, Bench, Shell, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

CD = Place("SATA", 1)


CONTROLLERS = (
    Controller("SATA", "IntelAhci", 4),
    Controller("V", "VirtioSCSI", 4),
    Controller("USB", "USB", 8),
)


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest, *CONTROLLERS) as bench:
        yield bench


@pytest.mark.timeout(600)
def test_drives_come_and_go(bench: Bench) -> None:
    bench.disk(Slot("SATA", 0), "a.vdi")
    first, second = (_cd(bench.folder / f"{name}.iso", name) for name in ("first", "second"))
    bench.attach(Slot("SATA", 1), first, DeviceType.DVD, 4 * MIB)
    with_group = bench.save()
    groups = (BandwidthGroup("slow", 1 << 20),)
    with open_registry(bench.home) as registry, registry.change() as change:
        save(change, replace(with_group, hardware=replace(with_group.hardware, bandwidth_groups=groups)))
    shell = bench.start()
    _no_plug_where_qemu_cannot(bench)
    for controller, name in (("V", "sdb"), ("USB", "sdb")):
        _plug_and_unplug(bench, shell, controller, name)
    _an_immutable_disk_is_plugged(bench, shell)
    _media_change(bench, shell, second)
    hardware.set_limit(bench.home, "bench", "slow", "0")


def _no_plug_where_qemu_cannot(bench: Bench) -> None:
    before = bench.load()
    for do in (
        lambda: attach(bench.home, "bench", AttachRequest(Place("SATA", 2), medium=_disk(bench, "x.vdi"))),
        lambda: detach(bench.home, "bench", Place("SATA", 0)),
    ):
        with pytest.raises(StorageError, match="stop the machine first") as refused:
            do()
        assert refused.value.kind is ErrorKind.STATE
    assert bench.load() == before


def _plug_and_unplug(bench: Bench, shell: Shell, controller: str, name: str) -> None:
    path = _disk(bench, f"{controller}.vdi")
    at = attach(bench.home, "bench", AttachRequest(Place(controller), medium=path)).attachment
    shell.run(f"until [ -e /dev/{name} ]; do sleep 0.1; done", timeout=60)
    shell.run(f"echo {controller} | dd of=/dev/{name} bs=512 conv=sync,fsync")
    detach(bench.home, "bench", Place(at.slot.controller, at.slot.port))
    shell.run(f"while [ -e /dev/{name} ]; do sleep 0.1; done", timeout=60)
    assert attachment_at(bench.load(), at.slot) is None
    with drivebay.open(path) as disk:
        assert disk.read(0, len(controller)) == controller.encode()


def _an_immutable_disk_is_plugged(bench: Bench, shell: Shell) -> None:
    """The guest writes the differencing image; the base stays as it was."""
    path = _disk(bench, "immutable.vdi")
    request = AttachRequest(Place("V"), medium=path, type=MediumType.IMMUTABLE)
    done = attach(bench.home, "bench", request)
    assert done.diff is not None
    shell.run("until [ -e /dev/sdb ]; do sleep 0.1; done", timeout=60)
    shell.run("echo virus | dd of=/dev/sdb bs=512 conv=sync,fsync")
    detach(bench.home, "bench", Place(done.attachment.slot.controller, done.attachment.slot.port))
    with drivebay.open(path) as disk:
        assert disk.read(0, 5) == bytes(5)
    with drivebay.open(done.diff.path, search=[bench.folder]) as disk:
        assert disk.read(0, 5) == b"virus"


def _media_change(bench: Bench, shell: Shell, second: Path) -> None:
    """E16: what the guest has locked stays in the drive, but for force."""
    _require_content(shell, "first")
    attach(bench.home, "bench", AttachRequest(CD, medium=str(second)))
    _require_content(shell, "second")
    shell.run("sleep 1000 < /dev/sr0 & sleep 0.5")
    with pytest.raises(StorageError, match="locked") as refused:
        eject(bench.home, "bench", Place())
    assert refused.value.kind is ErrorKind.IN_USE
    assert _inserted(bench) is not None
    eject(bench.home, "bench", Place(), force=True)
    assert _inserted(bench) is None


def _inserted(bench: Bench) -> object:
    at = attachment_at(bench.load(), Slot("SATA", 1))
    return at and at.medium


def _require_content(shell: Shell, text: str) -> None:
    """The first reads of a new medium fail, as those of a real drive that is not ready yet."""
    command = f"head -c {len(text)} /dev/sr0 2>/dev/null"
    until(lambda: shell.run(command, fails=True).endswith(text), f"the guest reads {text!r}")


def _disk(bench: Bench, name: str) -> str:
    path = bench.folder / name
    drivebay.create(path, size=8 * MIB)
    return str(path)


def _cd(path: Path, text: str) -> Path:
    path.write_bytes(text.encode().ljust(4 * MIB, b"\0"))
    return path
