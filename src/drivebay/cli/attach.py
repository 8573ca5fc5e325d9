"""Commands about drives: attached, changed, filled, emptied, detached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import ControllerName, Device, Machine, Port
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json
from drivebay.registry.medium import DeviceType, MediumType

if TYPE_CHECKING:
    from drivebay.service.machines.drives import Attached

Force = Annotated[bool, typer.Option("--force", help="Even if the guest has locked its drive.")]


def attach(
    context: typer.Context,
    machine: Machine,
    medium: Annotated[
        str | None,
        typer.Option(
            "--medium",
            metavar="MEDIUM",
            help="A file or a UUID; empty: nothing in the drive; none: no drive.",
        ),
    ] = None,
    controller: ControllerName = None,
    port: Port = None,
    device: Device = None,
    kind: Annotated[
        DeviceType | None, typer.Option("--type", help="The kind of drive (default: by the medium).")
    ] = None,
    write_mode: Annotated[
        MediumType | None, typer.Option("--mtype", help="Set the medium's write mode before.")
    ] = None,
    nonrotational: Annotated[
        bool | None,
        typer.Option("--nonrotational/--rotational", help="The guest sees a solid-state disk."),
    ] = None,
    discard: Annotated[
        bool | None, typer.Option("--discard/--no-discard", help="The guest may give space back.")
    ] = None,
    hotpluggable: Annotated[
        bool | None,
        typer.Option("--hotpluggable/--not-hotpluggable", help="It may be detached while the machine runs."),
    ] = None,
    temp_eject: Annotated[
        bool | None,
        typer.Option("--temp-eject/--no-temp-eject", help="What the guest ejects is back at the next start."),
    ] = None,
    bandwidth_group: Annotated[
        str | None, typer.Option("--bandwidth-group", metavar="NAME", help="Its limit; '' for none.")
    ] = None,
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="TEXT", help="Its serial number; '' for the default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="TEXT", help="Its model; '' for the default.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Attach a drive; or change the one in the slot, or what is in it.

    Without a slot the first free one is taken. An image that isn't registered becomes so. Where the medium
    itself must not be written (it is immutable, or others build on it), it gets a differencing image.
    """
    from drivebay.service.machines import drives
    from drivebay.service.machines.request import AttachRequest, Place

    place = Place(controller, port, device)
    if medium == "none":
        _detach(context, machine, place, as_json=as_json)
        return
    flags = {
        "nonrotational": nonrotational,
        "discard": discard,
        "hotpluggable": hotpluggable,
        "temp_eject": temp_eject,
        "bandwidth_group": bandwidth_group,
        "serial": serial,
        "model": model,
    }
    request = AttachRequest(
        place,
        None if medium == "empty" else medium,
        medium == "empty",
        kind,
        write_mode,
        {name: value for name, value in flags.items() if value is not None},
        force,
    )
    _tell(drives.attach(chosen_home(context), machine, request), as_json=as_json)


def detach(
    context: typer.Context,
    machine: Machine,
    controller: ControllerName = None,
    port: Port = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Take a drive away. Its medium stays as it is, and registered."""
    from drivebay.service.machines.request import Place

    _detach(context, machine, Place(controller, port, device), as_json=as_json)


def _detach(context: typer.Context, machine: str, place: Any, *, as_json: bool) -> None:
    from drivebay.service.machines import drives

    done = drives.detach(chosen_home(context), machine, place)
    if as_json:
        print_json({"detached": str(done.attachment.slot), "medium": done.left})
        return
    console().print(f"detached {plain(str(done.attachment.slot))}")
    if done.left is not None and done.left.parent is not None:
        console().print(
            f"its differencing image stays: attach it again by its UUID {done.left.uuid}, "
            "or delete it with drivebay medium delete"
        )


def eject(
    context: typer.Context,
    machine: Machine,
    controller: ControllerName = None,
    port: Port = None,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Empty a DVD or floppy drive; by default the only one that isn't empty."""
    from drivebay.service.machines import drives
    from drivebay.service.machines.request import Place

    done = drives.eject(chosen_home(context), machine, Place(controller, port, device), force=force)
    _tell(done, as_json=as_json)


def _tell(done: Attached, *, as_json: bool) -> None:
    from drivebay.machines.encoding import encode

    at = done.attachment
    if as_json:
        print_json({**encode(at), "diff": done.diff})
        return
    what = f"medium {at.medium}" if at.medium else "empty"
    console().print(plain(f"{at.slot}: {at.device.value} drive, {what}"))
    if done.diff is not None:
        console().print(f"a differencing image is written in its place: {plain(done.diff.path)}")
