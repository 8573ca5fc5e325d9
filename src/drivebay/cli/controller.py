"""Commands about a machine's storage controllers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from drivebay.cli.confirmation import Yes, confirm
from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import Machine
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json, print_wide

if TYPE_CHECKING:
    from drivebay.machines.kinds import ControllerKind
    from drivebay.machines.model import Controller

app = typer.Typer(help="A machine's storage controllers.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The controller's name.", show_default=False)]
Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="See drivebay controller kinds; of the same bus.")
]
Ports = Annotated[int | None, typer.Option("--ports", metavar="N", help="How many ports.")]
HostIoCache = Annotated[
    bool | None,
    typer.Option("--host-io-cache/--no-host-io-cache", help="Whether the host's page cache is used."),
]
Bootable = Annotated[
    bool | None,
    typer.Option("--bootable/--not-bootable", help="Whether firmware boots from it, of those of its kind."),
]
Substitute = Annotated[
    str | None,
    typer.Option("--substitute", metavar="KIND", help="What QEMU takes where it hasn't the kind itself."),
]


@app.command()
def add(
    context: typer.Context,
    machine: Machine,
    name: Name,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="See drivebay controller kinds.")],
    ports: Ports = None,
    host_io_cache: HostIoCache = None,
    bootable: Bootable = None,
    substitute: Substitute = None,
    as_json: Json = False,
) -> None:
    """Give a machine a controller called NAME."""
    from drivebay.service.machines import hardware

    made = hardware.add_controller(
        chosen_home(context),
        machine,
        name,
        kind,
        ports=ports,
        host_io_cache=host_io_cache,
        bootable=bootable,
        substitute=substitute or "",
    )
    _show(made, as_json=as_json)


@app.command()
def edit(
    context: typer.Context,
    machine: Machine,
    name: Name,
    kind: Kind = None,
    ports: Ports = None,
    host_io_cache: HostIoCache = None,
    bootable: Bootable = None,
    substitute: Substitute = None,
    as_json: Json = False,
) -> None:
    """Change a controller; what isn't named stays. --substitute '' takes a substitute away."""
    from drivebay.service.machines import hardware

    changed = hardware.edit_controller(
        chosen_home(context),
        machine,
        name,
        kind=kind,
        ports=ports,
        host_io_cache=host_io_cache,
        bootable=bootable,
        substitute=substitute,
    )
    _show(changed, as_json=as_json)


@app.command()
def rename(
    context: typer.Context,
    machine: Machine,
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Rename a controller; its drives stay on it."""
    from drivebay.service.machines import hardware

    _show(hardware.rename_controller(chosen_home(context), machine, name, new), as_json=as_json)


@app.command()
def remove(
    context: typer.Context, machine: Machine, name: Name, yes: Yes = False, as_json: Json = False
) -> None:
    """Take away a controller, and all drives on it. Their media stay."""
    from drivebay.service.machines import hardware

    home = chosen_home(context)
    if drives := hardware.drives_of(home, machine, name):
        confirm(f"also detach {', '.join(str(at.slot) for at in drives)}", yes=yes)
    hardware.remove_controller(home, machine, name)
    if as_json:
        print_json({"removed": name, "detached": [str(at.slot) for at in drives]})
    else:
        console().print(f"removed {plain(name)}")


@app.command()
def kinds(as_json: Json = False) -> None:
    """Show all kinds of controllers: what they take, how much, and what they are in QEMU."""
    from drivebay.machines.kinds import KINDS

    if as_json:
        print_json([_kind_fields(row) for row in KINDS.values()])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "bus", "ports", "devices", "takes", "cache", "hot-plug", "most", "boots", "QEMU"):
        table.add_column(heading)
    for row in KINDS.values():
        fields = _kind_fields(row)
        cells = (_range(row), fields["devices"], _listed(fields["accepts"]), _yes(row.host_io_cache))
        ends = (_yes(fields["hotplug"]), row.max_instances, _listed(fields["bootable_by"]), _qemu(row))
        table.add_row(row.name, row.bus.value, *map(str, cells + ends))
    print_wide(table)


def _kind_fields(row: ControllerKind) -> dict[str, object]:
    return {
        "name": row.name,
        "aliases": row.aliases,
        "bus": row.bus,
        "ports": dict(zip(("least", "most", "default"), row.ports, strict=True)),
        "devices": row.devices,
        "accepts": sorted(device.value for device in row.accepts),
        "host_io_cache": row.host_io_cache,
        "hotplug": row.qemu is not None and row.qemu.hotplug,
        "max_instances": row.max_instances,
        "bootable_by": sorted(firmware.value for firmware in row.bootable_by),
        "qemu": None if row.qemu is None else _device(row),
        "ports_of_an_adapter": None if row.qemu is None else row.qemu.ports,
        "closest": row.closest,
    }


def _device(row: ControllerKind) -> str:
    """The names of QEMU's devices: the adapter's, and that of the first kind of drive."""
    assert row.qemu is not None
    drive = next(iter(row.qemu.drives.values()))
    return " + ".join(text.partition(",")[0] for text in (row.qemu.adapter, drive.device))


def _range(row: ControllerKind) -> str:
    least, most, default = row.ports
    return str(least) if least == most else f"{least}-{most} ({default})"


def _qemu(row: ControllerKind) -> str:
    return _device(row) if row.qemu else f"none; closest: {', '.join(row.closest)}"


def _listed(values: object) -> str:
    return ", ".join(values) if isinstance(values, list) else str(values)


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _show(controller: Controller, *, as_json: bool) -> None:
    if as_json:
        print_json(controller)
        return
    ports = f"{controller.ports} port{'s' if controller.ports > 1 else ''}"
    instead = f", {controller.substitute} in its place in QEMU" if controller.substitute else ""
    console().print(f"controller {plain(controller.name)}: {controller.kind}, {ports}{instead}")
