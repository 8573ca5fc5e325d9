"""A machine and the places where its media are served -> QEMU's arguments. Pure: nothing is looked up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from drivebay.machines.model import Hardware, Machine, Network, Settings
from drivebay.qemu.boot_order import boot_indexes, floppy_boot_indexes
from drivebay.qemu.devices import controller_devices, drive_devices, names_of, node
from drivebay.qemu.drive import Drive
from drivebay.qemu.firmware import Efi
from drivebay.qemu.properties import Device

# PIIX3 and PIIX4, and a floppy controller, can be given to q35 as any other device; pc has some of its own,
# whose I/O ports a second one would claim (1.7). Without sata=off q35 has an AHCI that nobody asked for.
MACHINE_TYPE = "q35"

# Nothing that a headless guest would have to probe: no default devices.
BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none")
ACCELERATION = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    # Five-level page tables cost the emulator time and such a guest has no use for them.
    "tcg": ("-accel", "tcg", "-cpu", "max,-la57"),
}

QMP_SOCKET = "qmp.sock"
SERIAL_SOCKET = "serial.sock"
AGENT_SOCKET = "agent.sock"
VNC_SOCKET = "vnc.sock"
PID_FILE = "qemu.pid"
SERIAL_LOG = "serial.log"


@dataclass(frozen=True, slots=True)
class Launch:
    """How QEMU is started: with what, and where its sockets are.

    ``machine_type`` is the one that a saved state needs; ``vnc`` a loopback address (``127.0.0.1:5901``)
    besides the socket in ``run_folder``; ``incoming`` waits for a saved state.
    """

    run_folder: str
    program: str = "qemu-system-x86_64"
    accelerator: str = "tcg"
    machine_type: str = MACHINE_TYPE
    efi: Efi | None = None
    vnc: str = ""
    incoming: bool = False

    def for_state(self, machine_type: str, accelerator: str) -> Launch:
        """As this, but waiting for a state that was saved on these."""
        return replace(self, machine_type=machine_type, accelerator=accelerator, incoming=True)


def machine_arguments(machine: Machine, drives: Sequence[Drive], launch: Launch) -> list[str]:
    """The command that runs ``machine``, stopped before its first instruction.

    Raises StorageError for what QEMU doesn't have.
    """
    settings = machine.hardware.settings
    command = [launch.program, "-name", f"guest={_doubled(machine.name)}", "-uuid", str(machine.uuid)]
    command += [*ACCELERATION[launch.accelerator], "-m", str(settings.memory_mib)]
    command += ["-smp", str(settings.cpus), *BARE, "-S"]
    command += _machine(launch)
    command += _sockets(machine, launch)
    command += _kernel(settings)
    command += _others(settings, launch)
    command += storage_arguments(machine.hardware, drives)
    return [*command, "-incoming", "defer"] if launch.incoming else command


def storage_arguments(hardware: Hardware, drives: Sequence[Drive]) -> list[str]:
    """The controllers, the drives in them, and the block nodes that reach their media."""
    command: list[str] = []
    for drive in drives:
        if drive.export is not None:
            command += ["-blockdev", _json(node(names_of(hardware, drive.attachment.slot), drive))]
    for device in _devices(hardware, drives):
        command += ["-device", _json(device)]
    return command


def _devices(hardware: Hardware, drives: Sequence[Drive]) -> Iterator[Device]:
    indexes = {} if hardware.settings.kernel else boot_indexes(hardware, drives)
    for controller, device in controller_devices(hardware, drives):
        if device["driver"] == "isa-fdc":
            device |= floppy_boot_indexes(indexes, controller.name)
        yield device
    for drive in drives:
        yield from drive_devices(hardware, drive, indexes.get(drive.attachment.slot))


def _machine(launch: Launch) -> list[str]:
    options = [launch.machine_type, "sata=off"]
    if launch.efi is None:
        return ["-machine", ",".join(options)]
    code, variables = (
        {"driver": "file", "node-name": name, "filename": path, "read-only": read_only}
        for name, path, read_only in (
            ("efi-code", launch.efi.code, True),
            ("efi-variables", launch.efi.variables, False),
        )
    )
    options += ["pflash0=efi-code", "pflash1=efi-variables"]
    return ["-blockdev", _json(code), "-blockdev", _json(variables), "-machine", ",".join(options)]


def _sockets(machine: Machine, launch: Launch) -> list[str]:
    log = ""
    if machine.hardware.settings.serial_log:
        log = f",logappend=on,logfile={_doubled(os.path.join(machine.folder, SERIAL_LOG))}"
    return [
        *("-chardev", f"{_listening('qmp', launch, QMP_SOCKET)}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"{_listening('serial', launch, SERIAL_SOCKET)}{log}", "-serial", "chardev:serial"),
        *("-chardev", _listening("agent", launch, AGENT_SOCKET)),
        *("-pidfile", os.path.join(launch.run_folder, PID_FILE)),
    ]


def _listening(name: str, launch: Launch, socket: str) -> str:
    path = _doubled(os.path.join(launch.run_folder, socket))
    return f"socket,id={name},path={path},server=on,wait=off"


def _kernel(settings: Settings) -> list[str]:
    if not settings.kernel:
        return []
    command = ["-kernel", settings.kernel]
    command += ["-initrd", settings.initrd] if settings.initrd else []
    return [*command, "-append", settings.command_line] if settings.command_line else command


def _others(settings: Settings, launch: Launch) -> list[str]:
    """The display, the network and the guest agent's line, at addresses below the controllers'."""
    devices: list[Device] = [
        {"driver": "virtio-serial-pci", "id": "lines", "addr": "2.0"},
        {"driver": "virtserialport", "chardev": "agent", "name": "org.qemu.guest_agent.0", "bus": "lines.0"},
    ]
    command: list[str] = []
    if settings.network is Network.USER:
        devices[0]["multifunction"] = True
        devices.append({"driver": "e1000", "netdev": "network", "addr": "2.1"} | _network_boot(settings))
        command += ["-netdev", "user,id=network"]
    if not settings.kernel:  # what boots by itself may want to be seen
        devices.append({"driver": "VGA", "addr": "1.0"})
        command += ["-vnc", f"unix:{_doubled(os.path.join(launch.run_folder, VNC_SOCKET))}"]
        command += ["-vnc", _vnc(launch.vnc)] if launch.vnc else []
    for device in devices:
        command += ["-device", _json(device)]
    return command


def _network_boot(settings: Settings) -> Device:
    """The network card comes after all drives, or before them where it is the first of the order."""
    if "network" not in settings.boot_order:
        return {}
    return {"bootindex": 0 if settings.boot_order[0] == "network" else 1000}


def _vnc(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) - 5900}"


def _doubled(text: str) -> str:
    """As QEMU wants commas in its comma-separated options."""
    return text.replace(",", ",,")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
