"""The controller table against table 1.1 of the specification, and where slots are in QEMU."""

from __future__ import annotations

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import KINDS, Place, adapters, kind_of, place, unit_number
from drivebay.machines.model import Slot

# name: ports (least, most, default), devices per port, host I/O cache, instances
VIRTUALBOX = {
    "PIIX3": ((2, 2, 2), 2, True, 1),
    "PIIX4": ((2, 2, 2), 2, True, 1),
    "ICH6": ((2, 2, 2), 2, True, 1),
    "IntelAhci": ((1, 30, 30), 1, False, 8),
    "LsiLogic": ((16, 16, 16), 1, False, 8),
    "BusLogic": ((16, 16, 16), 1, False, 8),
    "LsiLogicSas": ((1, 255, 8), 1, False, 8),
    "USB": ((8, 8, 8), 1, False, 1),
    "NVMe": ((1, 255, 1), 1, False, 8),
    "VirtioSCSI": ((1, 256, 1), 1, False, 8),
    "I82078": ((1, 1, 1), 2, True, 1),
}


@pytest.mark.parametrize("name", VIRTUALBOX)
def test_limits_and_defaults_are_virtualboxs(name: str) -> None:
    row = KINDS[name]
    assert (row.ports, row.devices, row.host_io_cache, row.max_instances) == VIRTUALBOX[name]


def test_only_floppies_are_on_a_floppy_controller_and_only_disks_on_nvme() -> None:
    accepted = {name: {device.value for device in KINDS[name].accepts} for name in VIRTUALBOX}
    assert accepted.pop("I82078") == {"floppy"}
    assert accepted.pop("NVMe") == {"disk"}
    assert all(one == {"disk", "dvd"} for one in accepted.values())


def test_every_kind_is_in_qemu_or_names_kinds_that_are() -> None:
    for row in KINDS.values():
        assert row.qemu is not None or row.closest
        for name in row.closest:
            closest = KINDS[name]
            assert closest.qemu is not None
            assert closest.accepts >= row.accepts


def test_every_drive_that_a_kind_accepts_has_a_device() -> None:
    for row in KINDS.values():
        if row.qemu is not None:
            assert set(row.qemu.drives) == row.accepts
            assert all("{node}" not in drive.without_node for drive in row.qemu.drives.values())


@pytest.mark.parametrize("name", ["AHCI", "intelahci", "IntelAhci"])
def test_kinds_are_found_by_any_name(name: str) -> None:
    assert kind_of(name).name == "IntelAhci"


def test_e3_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(StorageError, match="PIIX4") as refused:
        kind_of("SATA-IO")
    assert refused.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    ("kind", "port", "expected"),
    [
        ("IntelAhci", 5, Place(0, 5, 0)),
        ("IntelAhci", 6, Place(1, 0, 0)),
        ("IntelAhci", 29, Place(4, 5, 0)),
        ("LsiLogicSas", 254, Place(31, 6, 0)),
        ("Lsi53c895a", 15, Place(2, 1, 0)),
        ("VirtioSCSI", 255, Place(0, 255, 0)),
        ("virtio-blk", 3, Place(3, 0, 0)),
    ],
)
def test_ports_beyond_an_adapter_are_on_the_next_one(kind: str, port: int, expected: Place) -> None:
    qemu = KINDS[kind].qemu
    assert qemu is not None
    assert place(qemu, Slot("c", port)) == expected


def test_only_adapters_with_drives_are_needed_and_the_first() -> None:
    qemu = KINDS["IntelAhci"].qemu
    assert qemu is not None
    assert adapters(qemu, []) == [0]
    assert adapters(qemu, [Slot("c", 29), Slot("c", 7), Slot("c", 8)]) == [0, 1, 4]


def test_units_count_ports_and_devices() -> None:
    assert [unit_number(KINDS["PIIX4"], Slot("c", *at)) for at in ((0, 0), (0, 1), (1, 0), (1, 1))] == [
        0,
        1,
        2,
        3,
    ]
    assert unit_number(KINDS["IntelAhci"], Slot("c", 12)) == 12
