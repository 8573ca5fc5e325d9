"""Commands about a machine's bandwidth groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import Machine
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.machines.model import BandwidthGroup

app = typer.Typer(help="Limits that a machine's drives share.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The group's name.", show_default=False)]
Limit = Annotated[
    str,
    typer.Option(
        "--limit",
        metavar="N[kmgKMG]",
        help="k, m, g: 1000^n bits per second; K, M, G: KiB, MiB, GiB; no letter: MiB; 0: no limit.",
    ),
]


@app.command()
def add(
    context: typer.Context, machine: Machine, name: Name, limit: Limit = "0", as_json: Json = False
) -> None:
    """Give a machine a bandwidth group. Drives join it with drivebay attach --bandwidth-group."""
    from drivebay.service.machines import hardware

    _show([hardware.add_group(chosen_home(context), machine, name, limit)], as_json=as_json)


@app.command("set")
def set_(context: typer.Context, machine: Machine, name: Name, limit: Limit, as_json: Json = False) -> None:
    """Change a group's limit, at once if the machine runs."""
    from drivebay.service.machines import hardware

    _show([hardware.set_limit(chosen_home(context), machine, name, limit)], as_json=as_json)


@app.command()
def remove(context: typer.Context, machine: Machine, name: Name, as_json: Json = False) -> None:
    """Take away a group that no drive is in."""
    from drivebay.service.machines import hardware

    hardware.remove_group(chosen_home(context), machine, name)
    if as_json:
        print_json({"removed": name})
    else:
        console().print(f"removed {plain(name)}")


@app.command("list")
def list_(context: typer.Context, machine: Machine, as_json: Json = False) -> None:
    """Show a machine's groups and their limits."""
    from drivebay.service.machines import hardware

    _show(hardware.groups_of(chosen_home(context), machine), as_json=as_json, many=True)


def _show(groups: list[BandwidthGroup], *, as_json: bool, many: bool = False) -> None:
    if as_json:
        print_json(groups if many else groups[0])
        return
    for group in groups:
        limit = f"{format_size(group.limit)}/s ({group.limit} bytes/s)" if group.limit else "no limit"
        console().print(f"{plain(group.name)}: {limit}")
