"""Commands about machines: made, listed, shown, changed, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from drivebay.cli.confirmation import Yes, confirm
from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import Machine
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json, print_wide
from drivebay.machines.model import Firmware, Network
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.machines.model import Machine as MachineValue
    from drivebay.service.machines.removal import Removal

app = typer.Typer(help="Machines: made, changed, run.", no_args_is_help=True)

Memory = Annotated[int | None, typer.Option("--memory", metavar="MIB", help="Memory in MiB (default: 512).")]
Cpus = Annotated[int | None, typer.Option("--cpus", metavar="N", help="Processors (default: 1).")]
FirmwareName = Annotated[Firmware | None, typer.Option("--firmware", help="What boots (default: bios).")]
Boot = Annotated[
    str | None,
    typer.Option("--boot", metavar="LIST", help="Boot order, of floppy, dvd, disk, network, with commas."),
]
Kernel = Annotated[
    str | None, typer.Option("--kernel", metavar="FILE", help="Boot this Linux kernel directly; '' for none.")
]
Initrd = Annotated[str | None, typer.Option("--initrd", metavar="FILE", help="The kernel's initrd.")]
Append = Annotated[str | None, typer.Option("--append", metavar="TEXT", help="The kernel's command line.")]
GuestScript = Annotated[
    str | None,
    typer.Option("--guest-script", metavar="FILE", help="Boot the tiny guest, which runs this; '' for none."),
]
NetworkName = Annotated[Network | None, typer.Option("--network", help="user or none (default: none).")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")]


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The machine's name.", show_default=False)],
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="DIR", help="Where its file and new images go.")
    ] = None,
    memory: Memory = None,
    cpus: Cpus = None,
    firmware: FirmwareName = None,
    boot: Boot = None,
    kernel: Kernel = None,
    initrd: Initrd = None,
    append: Append = None,
    guest_script: GuestScript = None,
    network: NetworkName = None,
    description: Description = None,
    as_json: Json = False,
) -> None:
    """Make a machine, without any controllers yet."""
    from drivebay.service.machines import lifecycle

    made = lifecycle.create_machine(
        chosen_home(context),
        name,
        folder=folder,
        description=description or "",
        settings=_settings(memory, cpus, firmware, boot, kernel, initrd, append, guest_script, network),
    )
    _tell(made, f"made machine {made.name!r} in {made.folder}", as_json=as_json)


@app.command()
def edit(
    context: typer.Context,
    machine: Machine,
    memory: Memory = None,
    cpus: Cpus = None,
    firmware: FirmwareName = None,
    boot: Boot = None,
    kernel: Kernel = None,
    initrd: Initrd = None,
    append: Append = None,
    guest_script: GuestScript = None,
    network: NetworkName = None,
    description: Description = None,
    as_json: Json = False,
) -> None:
    """Change a machine's settings; what isn't named stays."""
    from drivebay.service.machines import lifecycle

    settings = _settings(memory, cpus, firmware, boot, kernel, initrd, append, guest_script, network)
    changed = lifecycle.edit_machine(
        chosen_home(context), machine, settings=settings, description=description
    )
    _tell(changed, f"changed machine {changed.name!r}", as_json=as_json)


def _settings(
    memory: int | None,
    cpus: int | None,
    firmware: Firmware | None,
    boot: str | None,
    kernel: str | None,
    initrd: str | None,
    append: str | None,
    guest_script: str | None,
    network: Network | None,
) -> dict[str, Any]:
    """Those that were named, by the names of their fields."""
    from drivebay.service.machines.guest_script import read_guest_script

    order = None if boot is None else tuple(word.strip() for word in boot.split(",") if word.strip())
    given = {
        "memory_mib": memory,
        "cpus": cpus,
        "firmware": firmware,
        "boot_order": order,
        "kernel": kernel,
        "initrd": initrd,
        "command_line": append,
        "guest_script": read_guest_script(guest_script) if guest_script else guest_script,
        "network": network,
    }
    return {name: value for name, value in given.items() if value is not None}


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Show all machines."""
    from drivebay.machines.encoding import encode
    from drivebay.service.machines import lifecycle

    machines = lifecycle.list_machines(chosen_home(context))
    if as_json:
        print_json(encode(tuple(machines)))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "state", "drives", "snapshots", "UUID"):
        table.add_column(heading)
    for one in machines:
        counts = len(one.hardware.attachments), len(one.snapshots)
        table.add_row(plain(one.name), one.state.value, *map(str, counts), str(one.uuid))
    print_wide(table)


@app.command()
def show(context: typer.Context, machine: Machine, as_json: Json = False) -> None:
    """Show a machine: its settings, its slots, and the chain of images in each of them."""
    from drivebay.cli.machine_output import info_fields, show_machine
    from drivebay.service.machines.show import machine_info

    info = machine_info(chosen_home(context), machine)
    if as_json:
        print_json(info_fields(info))
    else:
        show_machine(info)


@app.command()
def rename(
    context: typer.Context,
    machine: Machine,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Rename a machine, and its folder if that is called like it."""
    from drivebay.service.machines import lifecycle

    renamed = lifecycle.rename_machine(chosen_home(context), machine, new)
    _tell(renamed, f"the machine is called {renamed.name!r} now, in {renamed.folder}", as_json=as_json)


@app.command()
def discard(context: typer.Context, machine: Machine, yes: Yes = False, as_json: Json = False) -> None:
    """Forget a machine's saved state, as if its power had been cut."""
    from drivebay.service.machines import lifecycle

    confirm(f"forget the saved state of machine {machine!r}; what its guest hadn't written is lost", yes=yes)
    done = lifecycle.discard_state(chosen_home(context), machine)
    _tell(done, f"machine {done.name!r} is powered off", as_json=as_json)


@app.command()
def delete(
    context: typer.Context,
    machine: Machine,
    now: Annotated[bool, typer.Option("--now", help="For good; else its images go to the trash.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a machine, and the images in its folder that nobody else uses."""
    from drivebay.service.machines import removal

    home = chosen_home(context)
    confirm(_what(removal.plan_removal(home, machine), now=now), yes=yes)
    done = removal.remove_machine(home, machine, now=now)
    if as_json:
        print_json(
            {"deleted": done.machine.uuid, "media": done.media, "kept": done.kept, "files": done.files}
        )
        return
    console().print(f"deleted machine {plain(repr(done.machine.name))}")
    for medium in done.kept:
        console().print(f"kept {plain(medium.path)}, which others use")


def _what(plan: Removal, *, now: bool) -> str:
    names = [plan.machine.name, *(f"snapshot {one.name}" for one in plan.machine.snapshots)]
    lines = [f"delete machine {', '.join(names)}"]
    where = "remove for good" if now else "move to the trash"
    lines += [f"{where} {one.path} ({format_size(one.size)} disk)" for one in plan.media]
    lines += [f"remove {path}" for path in plan.files]
    lines += [f"keep {one.path}, which others use" for one in plan.kept]
    return "\n  ".join(lines)


def _tell(machine: MachineValue, text: str, *, as_json: bool) -> None:
    from drivebay.machines.encoding import encode

    if as_json:
        print_json(encode(machine))
    else:
        console().print(plain(text))
