"""How a machine is shown: its controllers, slots and chains as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.tree import Tree

from drivebay.cli.media_output import info_fields as medium_fields
from drivebay.cli.media_output import medium_label
from drivebay.cli.output import plain, print_wide
from drivebay.machines.encoding import encode
from drivebay.machines.snapshot_tree import by_uuid
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.machines.model import Attachment, Machine
    from drivebay.service.machines.show import ControllerInfo, DriveInfo, MachineInfo

_FLAGS = ("nonrotational", "discard", "hotpluggable", "temp_eject")


def machine_fields(machine: Machine) -> dict[str, Any]:
    """A machine as JSON shows it: as its file has it, and the folder."""
    fields: dict[str, Any] = encode(machine)
    return fields


def info_fields(info: MachineInfo) -> dict[str, Any]:
    """A machine with all that is known of it, as JSON shows it."""
    slots = [_drive_fields(drive) for one in info.controllers for drive in one.drives]
    return {**machine_fields(info.machine), "slots": slots, "faults": info.faults}


def _drive_fields(drive: DriveInfo) -> dict[str, Any]:
    reset = drive.reset
    return {
        **encode(drive.attachment),
        "chain": [medium_fields(one) for one in drive.chain],
        "next_start": reset and {"will_reset": reset.will_reset, "because": reset.because},
    }


def show_machine(info: MachineInfo) -> None:
    """A machine for people."""
    machine = info.machine
    tree = Tree(f"[bold]{plain(machine.name)}[/] ({machine.state.value})  [dim]{machine.uuid}[/]")
    for line in _facts(machine):
        tree.add(line)
    for one in info.controllers:
        _add_controller(tree, one)
    for fault in info.faults:
        tree.add(f"[red]can't start[/]: {plain(fault)}")
    print_wide(tree)


def _facts(machine: Machine) -> list[str]:
    settings = machine.hardware.settings
    lines = [
        plain(machine.folder),
        f"{settings.memory_mib} MiB, {settings.cpus} CPU{'s' if settings.cpus > 1 else ''}, "
        f"{settings.firmware.value}, boots from {', '.join(settings.boot_order)}, "
        f"network: {settings.network.value}",
    ]
    if settings.kernel:
        lines.append(plain(f"kernel {settings.kernel} {settings.command_line}".rstrip()))
    if settings.guest_script:
        length = len(settings.guest_script.splitlines())
        lines.append(f"boots the tiny guest, with a script of {length} line{'s' if length > 1 else ''}")
    if machine.current is not None:
        changed = ", changed since" if machine.modified else ""
        name = by_uuid(machine, machine.current).name
        count = f"{len(machine.snapshots)} snapshot{'s' if len(machine.snapshots) > 1 else ''}"
        lines.append(plain(f"{count}; current: {name}{changed}"))
    if machine.description:
        lines.append(plain(machine.description))
    for group in machine.hardware.bandwidth_groups:
        limit = f"{format_size(group.limit)}/s" if group.limit else "no limit"
        lines.append(plain(f"bandwidth group {group.name}: {limit}"))
    return lines


def _add_controller(tree: Tree, info: ControllerInfo) -> None:
    controller = info.controller
    words = [controller.kind, f"{controller.ports} port{'s' if controller.ports > 1 else ''}"]
    words += [f"{controller.substitute} in its place"] if controller.substitute else []
    words += ["bootable"] if controller.bootable else []
    words += ["host I/O cache"] if controller.host_io_cache else []
    branch = tree.add(f"[bold]{plain(controller.name)}[/]: {', '.join(words)}")
    for drive in info.drives:
        _add_drive(branch, drive)


def _add_drive(branch: Tree, drive: DriveInfo) -> None:
    at = drive.attachment
    node = branch.add(plain(f"{at.slot.port}:{at.slot.device} {', '.join(_words(at))}"))
    for info in drive.chain:
        node = node.add(medium_label(info))
    if at.medium is not None and not drive.chain:
        node.add(f"[red]medium {at.medium} is not registered[/]")
    elif at.medium is None:
        node.add("[dim]empty[/]")


def _words(at: Attachment) -> list[str]:
    words = [at.device.value, *(name.replace("_", "-") for name in _FLAGS if getattr(at, name))]
    words += [f"in bandwidth group {at.bandwidth_group}"] if at.bandwidth_group else []
    words += [f"serial {at.serial}"] if at.serial else []
    return [*words, f"model {at.model}"] if at.model else words
