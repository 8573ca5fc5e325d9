"""The controller table: one row for each kind of controller. A new controller is a new row.

Ports, limits and defaults are those of VirtualBox (virtual-storage specification, 1.1), the devices QEMU's
(1.7). Where one adapter of QEMU has fewer ports than the kind, a machine gets several of them: `place` tells
which.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Firmware, Slot
from drivebay.registry.medium import DeviceType


class Bus(enum.Enum):
    """What a guest finds the controller on; the order is that in which firmware and lists take them."""

    IDE = "ide"
    SATA = "sata"
    SCSI = "scsi"
    SAS = "sas"
    USB = "usb"
    PCIE = "pcie"
    VIRTIO_SCSI = "virtio-scsi"
    VIRTIO_BLK = "virtio-blk"
    FLOPPY = "floppy"


@dataclass(frozen=True, slots=True)
class QemuDrive:
    """How QEMU is told to put a drive on an adapter.

    The texts are filled by name: ``adapter`` (the adapter's id), ``id`` (the drive's), ``node`` (its block
    node; an empty drive has none, see `without_node`), ``unit`` (port on this adapter, from 0), ``number``
    (unit + 1), ``device``, ``serial``, ``uuid`` and ``wwn`` (64 bits as 0x5...). ``carrier`` is a device that
    goes in between, with the id ``{id}-carrier``. ``takes`` are the optional properties that the device has.
    """

    device: str
    takes: frozenset[str]
    carrier: str = ""

    @property
    def without_node(self) -> str:
        """``device`` for a drive with nothing in it."""
        return self.device.replace(",drive={node}", "")


@dataclass(frozen=True, slots=True)
class QemuController:
    """QEMU's device for a kind of controller.

    ``adapter`` is the ``-device`` text of an adapter with the id ``{adapter}`` (and ``{serial}`` of its first
    disk where it has one; ``{chassis}`` is the controller's number, ``{adapter_number}`` the adapter's).
    One adapter has ``ports`` ports.
    ``machine`` is the machine type it needs, "" any. ``hotplug`` tells whether disks come and go while the
    guest runs, ``saves_state`` whether QEMU can save a guest that has it; ``modules`` are a Linux guest's
    drivers.
    """

    adapter: str
    ports: int
    drives: Mapping[DeviceType, QemuDrive]
    modules: tuple[str, ...]
    machine: str = ""
    hotplug: bool = False
    saves_state: bool = True


@dataclass(frozen=True, slots=True)
class ControllerKind:
    """A row of the table.

    ``ports`` is (least, most, default), ``devices`` the devices of a port. ``hotplug`` tells whether an
    attachment may be marked hot-pluggable. ``qemu`` None: QEMU has no such device, and ``closest`` names the
    rows that may stand in for it, the best first. ``grows``: attaching to a port beyond the number of ports
    raises that number (1.2).
    """

    name: str
    bus: Bus
    ports: tuple[int, int, int]
    accepts: frozenset[DeviceType]
    qemu: QemuController | None
    closest: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    devices: int = 1
    host_io_cache: bool = False
    hotplug: bool = False
    max_instances: int = 8
    bootable_by: frozenset[Firmware] = field(default=frozenset(Firmware))
    grows: bool = False


_DISK, _DVD, _FLOPPY = DeviceType.DISK, DeviceType.DVD, DeviceType.FLOPPY
_DISKS = frozenset({_DISK})
_DISKS_AND_DVDS = frozenset({_DISK, _DVD})
_BIOS = frozenset({Firmware.BIOS})

_COMMON = frozenset({"bootindex", "share-rw", "write-cache", "discard_granularity"})
_SECTORS = frozenset({"logical_block_size", "physical_block_size"})
_ERRORS = frozenset({"werror", "rerror"})
_GEOMETRY = frozenset({"cyls", "heads", "secs", "lcyls", "lheads", "lsecs"})
_DRIVE = _COMMON | _SECTORS | _ERRORS
_ATA = _DRIVE | _GEOMETRY | {"model", "ver", "rotation_rate"}
_ATAPI = _DRIVE | {"model", "ver"}
_SCSI = _DRIVE | _GEOMETRY | {"vendor", "product", "ver", "rotation_rate"}
_SCSI_DVD = _DRIVE | {"vendor", "product", "ver"}


def _scsi(place: str, extra: str = "") -> dict[DeviceType, QemuDrive]:
    """The drives of any SCSI adapter, found at ``place``."""
    rest = f",id={{id}},bus={{adapter}}.0,{place},drive={{node}},serial={{serial}}{extra}"
    return {_DISK: QemuDrive(f"scsi-hd{rest}", _SCSI), _DVD: QemuDrive(f"scsi-cd{rest}", _SCSI_DVD)}


def _ata(place: str) -> dict[DeviceType, QemuDrive]:
    rest = f",id={{id}},{place},drive={{node}},serial={{serial}}"
    return {_DISK: QemuDrive(f"ide-hd{rest}", _ATA), _DVD: QemuDrive(f"ide-cd{rest}", _ATAPI)}


def _ide(adapter: str) -> QemuController:
    # The pc machine has an IDE controller of its own, whose I/O ports this one would claim.
    place = "bus={adapter}.{unit},unit={device}"
    return QemuController(f"{adapter},id={{adapter}}", 2, _ata(place), ("ata_piix", "sd_mod"), machine="q35")


_AHCI = QemuController("ich9-ahci,id={adapter}", 6, _ata("bus={adapter}.{unit}"), ("ahci", "sd_mod"))
_LSI = QemuController(
    "lsi53c895a,id={adapter}", 7, _scsi("channel=0,scsi-id={unit},lun=0"), ("sym53c8xx", "sd_mod")
)
# The adapter is target 7 of its own bus, as on the real one.
_ESP = QemuController("am53c974,id={adapter}", 7, _scsi("scsi-id={unit},lun=0"), ("am53c974", "sd_mod"))
_SAS = QemuController(
    "mptsas1068,id={adapter}", 8, _scsi("scsi-id={unit},lun=0", ",wwn={wwn}"), ("mptsas", "sd_mod")
)
_VIRTIO_SCSI = QemuController(
    "virtio-scsi-pci,id={adapter},disable-legacy=on",
    256,
    _scsi("scsi-id={unit},lun=0"),
    ("virtio_pci", "virtio_scsi", "sd_mod"),
    hotplug=True,
)
# QEMU has 64 targets, and does not tell Linux so, which looks at 16.
_PVSCSI = QemuController(
    "pvscsi,id={adapter}", 16, _scsi("scsi-id={unit},lun=0"), ("vmw_pvscsi", "sd_mod"), hotplug=True
)
_USB = QemuController(
    "qemu-xhci,id={adapter},p2=8,p3=8",
    8,
    {
        _DISK: QemuDrive(
            "usb-storage,id={id},bus={adapter}.0,port={number},drive={node},serial={serial}", _DRIVE
        ),
        _DVD: QemuDrive(
            "scsi-cd,id={id},bus={id}-carrier.0,scsi-id=0,lun=0,drive={node}",
            _SCSI_DVD,
            carrier="usb-bot,id={id}-carrier,bus={adapter}.0,port={number},serial={serial}",
        ),
    },
    ("xhci-pci", "usb-storage", "sd_mod"),
    hotplug=True,
)
# QEMU marks its NVMe controller as one that cannot be migrated, so a guest with it cannot be saved.
_NVME = QemuController(
    "nvme,id={adapter},serial={serial}",
    256,
    {
        _DISK: QemuDrive(
            "nvme-ns,id={id},bus={adapter},nsid={number},drive={node},uuid={uuid}",
            _COMMON | _SECTORS,
        )
    },
    ("nvme",),
    saves_state=False,
)
# A device of its own for each disk, behind a PCI Express port, where it may come and go. No I/O space: there
# is not enough of it for many ports, and these disks need none.
_VIRTIO_BLK = QemuController(
    "pcie-root-port,id={adapter},chassis={chassis},slot={adapter_number},io-reserve=0",
    1,
    {
        _DISK: QemuDrive(
            "virtio-blk-pci,id={id},bus={adapter},drive={node},serial={serial}", _DRIVE | _GEOMETRY
        )
    },
    ("virtio_pci", "virtio_blk"),
    hotplug=True,
)
_FDC = QemuController(
    "isa-fdc,id={adapter}",
    1,
    {
        _FLOPPY: QemuDrive(
            "floppy,id={id},bus={adapter}.0,unit={device},drive={node}",
            frozenset({"drive-type", "share-rw", "write-cache"}),
        )
    },
    ("floppy",),
    machine="q35",  # as with IDE: the pc machine has one of its own
)


def _ide_row(name: str, qemu: QemuController | None, closest: tuple[str, ...] = ()) -> ControllerKind:
    return ControllerKind(
        name,
        Bus.IDE,
        (2, 2, 2),
        _DISKS_AND_DVDS,
        qemu,
        closest,
        devices=2,
        host_io_cache=True,
        max_instances=1,
    )


_ROWS = (
    _ide_row("PIIX4", _ide("piix4-ide")),
    _ide_row("PIIX3", _ide("piix3-ide")),
    _ide_row("ICH6", None, ("PIIX4", "PIIX3")),
    ControllerKind(
        "IntelAhci",
        Bus.SATA,
        (1, 30, 30),
        _DISKS_AND_DVDS,
        _AHCI,
        aliases=("AHCI",),
        hotplug=True,
        grows=True,
    ),
    ControllerKind(
        "LsiLogic", Bus.SCSI, (16, 16, 16), _DISKS_AND_DVDS, None, ("LsiLogicSas", "Lsi53c895a", "VirtioSCSI")
    ),
    ControllerKind(
        "BusLogic", Bus.SCSI, (16, 16, 16), _DISKS_AND_DVDS, None, ("Lsi53c895a", "Am53c974", "VirtioSCSI")
    ),
    ControllerKind("Lsi53c895a", Bus.SCSI, (1, 16, 7), _DISKS_AND_DVDS, _LSI, bootable_by=_BIOS, grows=True),
    ControllerKind("Am53c974", Bus.SCSI, (1, 16, 7), _DISKS_AND_DVDS, _ESP, bootable_by=_BIOS, grows=True),
    ControllerKind("pvscsi", Bus.SCSI, (1, 64, 16), _DISKS_AND_DVDS, _PVSCSI, hotplug=True, grows=True),
    ControllerKind("LsiLogicSas", Bus.SAS, (1, 255, 8), _DISKS_AND_DVDS, _SAS, grows=True),
    ControllerKind("USB", Bus.USB, (8, 8, 8), _DISKS_AND_DVDS, _USB, hotplug=True, max_instances=1),
    ControllerKind("NVMe", Bus.PCIE, (1, 255, 1), _DISKS, _NVME, grows=True),
    ControllerKind(
        "VirtioSCSI", Bus.VIRTIO_SCSI, (1, 256, 1), _DISKS_AND_DVDS, _VIRTIO_SCSI, hotplug=True, grows=True
    ),
    ControllerKind("virtio-blk", Bus.VIRTIO_BLK, (1, 24, 1), _DISKS, _VIRTIO_BLK, hotplug=True, grows=True),
    ControllerKind(
        "I82078",
        Bus.FLOPPY,
        (1, 1, 1),
        frozenset({_FLOPPY}),
        _FDC,
        devices=2,
        host_io_cache=True,
        max_instances=1,
        bootable_by=_BIOS,
    ),
)

KINDS: dict[str, ControllerKind] = {row.name: row for row in _ROWS}
_BY_ANY_NAME = {name.lower(): row for row in _ROWS for name in (row.name, *row.aliases)}


def kind_of(name: str) -> ControllerKind:
    """The row called ``name``, in any case. Raises StorageError (INVALID), which lists the names (E3)."""
    row = _BY_ANY_NAME.get(name.lower())
    if row is None:
        raise StorageError(
            ErrorKind.INVALID,
            f"there is no kind of controller called {name[:60]!r}; choose one of {', '.join(KINDS)}",
            operation="look up a controller",
        )
    return row


def kinds_on(bus: Bus) -> list[ControllerKind]:
    """The rows of a bus, its default first."""
    return [row for row in _ROWS if row.bus is bus]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slot is in QEMU: the number of the adapter (of this controller) and the port on it."""

    adapter: int
    unit: int
    device: int


def place(qemu: QemuController, slot: Slot) -> Place:
    """The adapter and its port that serve ``slot``."""
    return Place(slot.port // qemu.ports, slot.port % qemu.ports, slot.device)


def adapters(qemu: QemuController, slots: Iterable[Slot]) -> list[int]:
    """The adapters that slots of one controller need, in order: the first, and those that have a drive."""
    return sorted({0, *(place(qemu, slot).adapter for slot in slots)})


def unit_number(kind: ControllerKind, slot: Slot) -> int:
    """The guest's number of the unit in ``slot`` (specification, 1.3)."""
    return slot.port * kind.devices + slot.device
