"""Machines that start with EFI, on the real firmware: what boots, and whose its variables are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.efi_variables import variables_of
from drivebay.machines.model import Controller, Firmware, Machine, Settings, Slot
from drivebay.qemu import TinyGuest
from drivebay.qemu.firmware import require_efi_kernel
from drivebay.registry.database import open_registry
from drivebay.service.clones import clone_machine
from drivebay.service.doctor import examine
from drivebay.service.machines.removal import remove_machine
from drivebay.service.runtime import is_running, start
from drivebay.service.runtime.guest import with_guest
from drivebay.service.snapshots import delete_snapshot, restore_snapshot, take_snapshot
from support.efi_disk import SAYS, SIZE, bootable
from support.guest_shell import MIB, Bench, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

EFI = Settings(memory_mib=256, firmware=Firmware.EFI)


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest, Controller("SATA", "IntelAhci", 4), settings=EFI) as bench:
        yield bench


def _boot(bench: Bench) -> str:
    """What is said on the serial line until the machine is off."""
    log = Path(bench.load().folder, "serial.log")
    log.unlink(missing_ok=True)
    start(bench.home, bench.uuid)
    with bench.client() as client:
        assert client.wait_stopped(240) == {"state": "powered-off"}
    return log.read_text(errors="replace")


@pytest.mark.timeout(900)
def test_variables_belong_to_a_machines_state(bench: Bench) -> None:
    bench.disk(Slot("SATA", 0), "empty.vdi", 2 * MIB)
    linux = bench.guest.files(bench.folder, "cat /sys/firmware/efi/fw_platform_size\n", (), efi=True)
    disk = bench.disk(Slot("SATA", 1), "efi.vdi", SIZE)
    bootable(str(disk), linux.kernel, linux.initramfs, linux.command_line)
    machine = bench.save(direct=False)
    never = take_snapshot(bench.home, "bench", "never started").snapshot
    assert SAYS in _boot(bench)
    first = take_snapshot(bench.home, "bench", "first").snapshot
    said = _boot(bench)  # the boot entry has outlived the power cycle: Linux starts from the disk
    assert "@@end 0" in said
    assert SAYS not in said

    kept = Path(variables_of(machine, first.uuid)).read_bytes()
    Path(variables_of(machine)).write_bytes(latest := kept[::-1])
    clone = clone_machine(bench.home, "bench", "twin").machine
    assert Path(variables_of(clone)).read_bytes() == latest
    linked = clone_machine(bench.home, "bench", "linked", snapshot="first", linked=True).machine
    assert Path(variables_of(linked)).read_bytes() == kept
    restore_snapshot(bench.home, "bench", "first")
    assert Path(variables_of(machine)).read_bytes() == kept
    restore_snapshot(bench.home, "bench", "never started")
    assert not os.path.exists(variables_of(machine))
    with open_registry(bench.home) as registry:
        assert [trouble for trouble in examine(registry) if trouble.code == "leftover"] == []
    remove_machine(bench.home, "linked", now=True)
    delete_snapshot(bench.home, "bench", "first")
    assert not os.path.exists(variables_of(machine, first.uuid))
    assert not os.path.exists(variables_of(machine, never.uuid))
    _removed(bench, clone)


def _removed(bench: Bench, clone: Machine) -> None:
    remove_machine(bench.home, clone.name, now=True)
    assert not os.path.exists(clone.folder)


@pytest.mark.timeout(600)
def test_a_kernel_started_by_the_firmware_is_saved_and_goes_on(bench: Bench) -> None:
    bench.disk(Slot("SATA", 0), "disk.vdi", 8 * MIB)
    machine = bench.save()
    shell = bench.start()
    assert shell.run("cat /sys/firmware/efi/fw_platform_size") == "64"
    shell.run("echo kept > /tmp/note; echo data | dd of=/dev/sda conv=fsync 2>/dev/null")
    take_snapshot(bench.home, "bench", "online")
    shell.run("echo lost > /tmp/note")
    with bench.client() as client:
        client.kill()
    until(lambda: not is_running(bench.home, bench.uuid), "the end")
    restore_snapshot(bench.home, "bench", "online")
    start(bench.home, bench.uuid)
    shell = bench.shell()
    assert shell.run("cat /tmp/note") == "kept"
    assert shell.run("head -c 4 /dev/sda") == "data"
    with bench.client() as client:
        client.kill()
    assert Path(variables_of(machine)).stat().st_size > 0


def test_kernels_that_the_firmware_would_pass_over(bench: Bench, tmp_path: Path) -> None:
    machine = bench.save()
    scripted = replace(machine.hardware, settings=replace(EFI, guest_script="echo @@it runs"))
    chosen = with_guest(replace(machine, hardware=scripted), (), str(tmp_path)).hardware.settings.kernel
    require_efi_kernel(chosen)
    bench.settings = replace(EFI, kernel=str(bench.guest.kernel.image))
    bench.save(direct=False)
    with pytest.raises(StorageError, match=r"no EFI stub.*--firmware bios") as caught:
        start(bench.home, bench.uuid)
    assert caught.value.kind is ErrorKind.UNSUPPORTED
    assert not is_running(bench.home, bench.uuid)
