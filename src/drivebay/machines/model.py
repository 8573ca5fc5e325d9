"""Machines as frozen values: what a machine file holds. No I/O and no policy."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from drivebay.registry.medium import DeviceType


class Firmware(enum.Enum):
    """What starts the guest, unless a kernel is given."""

    BIOS = "bios"
    EFI = "efi"


class Network(enum.Enum):
    """The guest's network: QEMU's user-mode one, or none."""

    USER = "user"
    NONE = "none"


class MachineState(enum.Enum):
    """A machine's state as it is recorded; whether it really runs is asked of its processes."""

    POWERED_OFF = "powered-off"
    SAVED = "saved"
    ABORTED = "aborted"  # it ended without being powered off
    RUNNING = "running"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is not storage. ``boot_order``: "floppy", "dvd", "disk", "network"; ``kernel`` boots directly.

    ``guest_script`` is the text of a shell script: the tiny guest boots, runs it, and powers off.
    """

    memory_mib: int = 512
    cpus: int = 1
    firmware: Firmware = Firmware.BIOS
    boot_order: tuple[str, ...] = ("floppy", "dvd", "disk")
    network: Network = Network.NONE
    kernel: str = ""
    initrd: str = ""
    command_line: str = ""
    serial_log: bool = True
    guest_script: str = ""


@dataclass(frozen=True, slots=True)
class Controller:
    """``kind`` names a row of the controller table, ``substitute`` the row used in its place in QEMU."""

    name: str
    kind: str
    ports: int
    instance: int = 0
    host_io_cache: bool = False
    bootable: bool = False
    substitute: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A place on a controller. Its text (``SATA:0:0``) names it in commands, exports and messages."""

    controller: str
    port: int = 0
    device: int = 0

    def __str__(self) -> str:
        return f"{self.controller}:{self.port}:{self.device}"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A drive in a slot, with a medium in it or (DVD and floppy only) without.

    ``serial`` and ``model`` empty mean VirtualBox's defaults (1.6).
    """

    slot: Slot
    device: DeviceType = DeviceType.DISK
    medium: UUID | None = None
    nonrotational: bool = False
    discard: bool = False
    hotpluggable: bool = False
    temp_eject: bool = False
    bandwidth_group: str = ""
    serial: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class BandwidthGroup:
    """Disks that share one limit in bytes per second, reads and writes together; 0 is none."""

    name: str
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Hardware:
    """All that a snapshot keeps of a machine and that a restore brings back."""

    settings: Settings = field(default_factory=Settings)
    controllers: tuple[Controller, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    bandwidth_groups: tuple[BandwidthGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A restore point. ``state_file`` (in the snapshot folder) makes it an online one."""

    uuid: UUID
    name: str
    taken: datetime
    hardware: Hardware
    parent: UUID | None = None
    description: str = ""
    state_file: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine; ``folder`` is absolute. ``current`` is the snapshot that the current state descends from.

    ``state_file`` is that of a saved machine, named from ``folder`` on. ``modified`` tells that the current
    state differs from the current snapshot's.
    """

    uuid: UUID
    name: str
    folder: str
    hardware: Hardware = field(default_factory=Hardware)
    snapshots: tuple[Snapshot, ...] = ()
    current: UUID | None = None
    state: MachineState = MachineState.POWERED_OFF
    state_file: str = ""
    modified: bool = True
    description: str = ""

    @property
    def snapshot_folder(self) -> str:
        """Where diffs and saved states go."""
        return f"{self.folder}/Snapshots"
