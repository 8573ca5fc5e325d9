"""Disks -> QEMU's arguments."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import KINDS, Bus
from drivebay.qemu import DirectKernel, NbdDisk, arguments
from drivebay.registry.medium import DeviceType

CONTROLLERS = [name for name, kind in KINDS.items() if kind.qemu and DeviceType.DISK in kind.accepts]
KERNEL = DirectKernel(Path("/k/vmlinux"), Path("/k/root.cpio"), "console=ttyS0")


def values(command: Sequence[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(command) if name == option]


def test_an_ahci_disk_is_an_nbd_node_on_a_port() -> None:
    command = arguments([NbdDisk("/run/a,b.sock", "child", reconnect_delay=7)], KERNEL)
    (node,) = map(json.loads, values(command, "-blockdev"))
    assert node["server"] == {"type": "unix", "path": "/run/a,b.sock"}
    assert (node["export"], node["reconnect-delay"], node["discard"]) == ("child", 7, "unmap")
    assert node["cache"]["no-flush"] is False
    controller, drive = map(json.loads, values(command, "-device"))
    assert (controller["driver"], controller["id"]) == ("ich9-ahci", "adapter-0-0")
    assert (drive["driver"], drive["bus"], drive["serial"]) == ("ide-hd", "adapter-0-0.0", "drivebay0")
    assert (drive["drive"], drive["write-cache"]) == (node["node-name"], "on")


def test_a_controller_is_made_once_and_its_ports_count_up() -> None:
    disks = [NbdDisk("/a"), NbdDisk("/b", controller="nvme"), NbdDisk("/c")]
    devices = [json.loads(device) for device in values(arguments(disks, KERNEL), "-device")]
    assert [device["driver"] for device in devices] == ["ich9-ahci", "nvme", "ide-hd", "nvme-ns", "ide-hd"]
    assert (devices[4]["bus"], devices[4]["serial"]) == ("adapter-0-0.1", "drivebay2")


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
    kind = KINDS[name]
    most = kind.max_instances if kind.bus is Bus.PCIE else kind.ports[1] * kind.devices
    full = [NbdDisk(f"/{number}", controller=name) for number in range(most)]
    drives = [device for device in values(arguments(full, KERNEL), "-device") if '"drive":' in device]
    assert len(set(drives)) == most
    with pytest.raises(StorageError, match=f"{name} takes {most} disks") as caught:
        arguments([*full, NbdDisk("/more", controller=name)], KERNEL)
    assert caught.value.kind is ErrorKind.INVALID


def test_an_unknown_controller_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StorageError, match=r"'mfm'.*PIIX4, PIIX3") as caught:
        arguments([NbdDisk("/a", controller="mfm")], KERNEL)
    assert caught.value.kind is ErrorKind.INVALID
