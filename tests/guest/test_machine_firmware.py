"""Machines that boot by firmware: the boot order reaches it, and the serial log has what the guest says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay
from drivebay.errors import StorageError
from drivebay.machines.model import Controller, Settings, Slot
from drivebay.qemu import TinyGuest
from drivebay.service.runtime import start
from support.guest_shell import MIB, Bench, new_bench
from support.patience import until

pytestmark = pytest.mark.xdist_group("guest")

# Writes the text that follows it to the first serial port, byte by byte, and halts: cld; ds = 0;
# si = the text; dx = the port; then lodsb, out until a zero.
BOOT_CODE = bytes.fromhex("fc 31c0 8ed8 be167c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")


@pytest.fixture
def bench(guest: TinyGuest) -> Iterator[Bench]:
    with new_bench(guest) as bench:
        yield bench


def _bootable(path: Path, text: str) -> None:
    with drivebay.open(path, writable=True) as disk:
        disk.write(0, (BOOT_CODE + text.encode()).ljust(510, b"\0") + b"\x55\xaa")
        disk.flush()


@pytest.mark.timeout(600)
def test_the_bios_boots_from_the_bootable_controllers_disk(bench: Bench) -> None:
    bench.controllers = (
        Controller("SATA", "IntelAhci", 30),
        Controller("SCSI", "VirtioSCSI", 4, bootable=True),
    )
    _bootable(bench.disk(Slot("SATA", 7), "sata.vdi", 2 * MIB), "this is SATA")
    _bootable(bench.disk(Slot("SCSI", 2), "scsi.vdi", 2 * MIB), "this is SCSI")
    bench.settings = Settings(memory_mib=64, boot_order=("dvd", "disk"))
    machine = bench.save(direct=False)
    start(bench.home, bench.uuid)
    log = Path(machine.folder, "serial.log")
    until(lambda: b"this is S" in log.read_bytes(), "the boot sector speaks", 120)
    assert b"this is SCSI" in log.read_bytes()
    with bench.client() as client:
        assert client.status()["vnc"]
        assert client.status()["disks"]["SCSI:2:0"]["reads"] > 0
        with pytest.raises(StorageError, match=r"still runs after 1 s.*drivebay machine kill"):
            client.stop(1)
        assert client.kill() == {"state": "powered-off"}
