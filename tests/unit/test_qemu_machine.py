"""Disks -> QEMU's arguments."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu import CONTROLLERS, DirectKernel, NbdDisk, arguments

KERNEL = DirectKernel(Path("/k/vmlinux"), Path("/k/root.cpio"), "console=ttyS0")


def values(command: Sequence[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(command) if name == option]


def test_an_ahci_disk_is_an_nbd_node_on_a_port() -> None:
    command = arguments([NbdDisk("/run/a,b.sock", "child", reconnect_delay=7)], KERNEL)
    (node,) = map(json.loads, values(command, "-blockdev"))
    assert node["server"] == {"type": "unix", "path": "/run/a,b.sock"}
    assert (node["export"], node["reconnect-delay"], node["discard"]) == ("child", 7, "unmap")
    assert node["cache"]["no-flush"] is False
    controller, drive = values(command, "-device")
    assert controller == "ich9-ahci,id=ahci"
    assert drive == "ide-hd,bus=ahci.0,drive=disk0,serial=drivebay0,write-cache=on"


def test_a_controller_is_made_once_and_its_ports_count_up() -> None:
    disks = [NbdDisk("/a"), NbdDisk("/b", controller="nvme"), NbdDisk("/c")]
    devices = values(arguments(disks, KERNEL), "-device")
    assert [device.partition(",")[0] for device in devices] == ["ich9-ahci", "ide-hd", "nvme", "ide-hd"]
    assert "bus=ahci.1,drive=disk2,serial=drivebay2" in devices[3]


def test_the_guest_has_a_kernel_a_serial_line_and_nothing_to_probe() -> None:
    command = arguments([], KERNEL, accelerator="kvm", memory_mib=128)
    assert values(command, "-kernel") == ["/k/vmlinux"]
    assert values(command, "-initrd") == ["/k/root.cpio"]
    assert values(command, "-append") == ["console=ttyS0"]
    assert values(command, "-serial") == ["stdio"]
    assert values(command, "-accel") == ["kvm"]
    assert values(command, "-m") == ["128"]
    assert {"-nodefaults", "-no-reboot"} <= set(command)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_row_takes_as_many_disks_as_it_says_and_no_more(name: str) -> None:
    ports = CONTROLLERS[name].ports
    full = [NbdDisk(f"/{number}", controller=name) for number in range(ports)]
    drives = [device for device in values(arguments(full, KERNEL), "-device") if "drive=" in device]
    assert len(set(drives)) == ports
    with pytest.raises(StorageError, match=f"{name} has {ports} ports") as caught:
        arguments([*full, NbdDisk("/more", controller=name)], KERNEL)
    assert caught.value.kind is ErrorKind.INVALID


def test_an_unknown_controller_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StorageError, match=r"'mfm'.*ahci, lsilogic") as caught:
        arguments([NbdDisk("/a", controller="mfm")], KERNEL)
    assert caught.value.kind is ErrorKind.INVALID
