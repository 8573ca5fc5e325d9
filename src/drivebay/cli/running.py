"""Commands about running machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from drivebay.cli.confirmation import Yes, confirm
from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import Machine
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json, print_wide
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.service.runtime import MachineClient

Timeout = Annotated[
    float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long the guest may take.")
]


def start(
    context: typer.Context,
    machine: Machine,
    substitute: Annotated[
        bool,
        typer.Option("--substitute", help="Use the closest controller where QEMU has none; remembered."),
    ] = False,
    vnc: Annotated[
        str,
        typer.Option("--vnc", metavar="127.0.0.1:PORT", help="Show the display there, too (no password)."),
    ] = "",
    as_json: Json = False,
) -> None:
    """Start a machine; one that was saved goes on where it was."""
    from drivebay.service.runtime import StartOptions
    from drivebay.service.runtime import start as start_machine

    said: list[str] = []
    options = StartOptions(substitute=substitute, vnc=vnc)
    facts = start_machine(chosen_home(context), machine, options, said.append)
    if as_json:
        print_json({**facts, "notes": said})
        return
    for line in said:
        console().print(plain(line))
    for warning in facts["warnings"]:
        console(stderr=True).print(f"[yellow]warning:[/] {plain(warning)}")
    how = "KVM" if facts["accelerator"] == "kvm" else "software emulation (no KVM here: slow)"
    console().print(f"machine {plain(repr(facts['name']))} runs, with {how}")


def stop(context: typer.Context, machine: Machine, timeout: Timeout = 120, as_json: Json = False) -> None:
    """Press the power button, and wait until the guest has powered off."""
    with _running(context, machine) as client:
        _tell(client.stop(timeout), f"machine {machine!r} is off", as_json=as_json)


def kill(context: typer.Context, machine: Machine, yes: Yes = False, as_json: Json = False) -> None:
    """Pull the plug: what the guest has not flushed is lost to it."""
    with _running(context, machine) as client:
        confirm(f"end machine {machine!r} at once; what its guest hasn't written is lost", yes=yes)
        _tell(client.kill(), f"machine {machine!r} is off", as_json=as_json)


def pause(context: typer.Context, machine: Machine, as_json: Json = False) -> None:
    """Stop the guest's processors."""
    with _running(context, machine) as client:
        client.pause()
        _tell({"state": "paused"}, f"machine {machine!r} is paused", as_json=as_json)


def resume(context: typer.Context, machine: Machine, as_json: Json = False) -> None:
    """Let a paused guest go on, also after a full disk or another error whose cause is gone."""
    with _running(context, machine) as client:
        client.resume()
        _tell({"state": "running"}, f"machine {machine!r} goes on", as_json=as_json)


def reset(context: typer.Context, machine: Machine, yes: Yes = False, as_json: Json = False) -> None:
    """Press the reset button. Immutable disks keep what was written: that takes a power cycle."""
    with _running(context, machine) as client:
        confirm(f"reset machine {machine!r}; what its guest hasn't written is lost", yes=yes)
        client.reset()
        _tell({"state": "running"}, f"machine {machine!r} starts again", as_json=as_json)


def save(context: typer.Context, machine: Machine, as_json: Json = False) -> None:
    """Write the guest's state to a file and end; the next start goes on from there."""
    with _running(context, machine) as client:
        _tell(client.save(), f"machine {machine!r} is saved", as_json=as_json)


def wait(
    context: typer.Context,
    machine: Machine,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="Give up after this time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Wait until a machine is off, and tell how it ended."""
    from drivebay.service.runtime.running import wait_until_off

    state = wait_until_off(chosen_home(context), machine, timeout)
    _tell({"state": state}, f"machine {machine!r} is {state}", as_json=as_json)


def status(
    context: typer.Context,
    machine: Machine,
    interval: Annotated[
        float,
        typer.Option("--interval", min=0, max=60, metavar="SECONDS", help="Measure rates over this time."),
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Show whether a machine runs, why it is paused, and what each of its disks does."""
    from drivebay.service.runtime.running import machine_status

    found = machine_status(chosen_home(context), machine, interval)
    if as_json:
        print_json(found)
    else:
        show(found)


def console_(context: typer.Context, machine: Machine) -> None:
    """Connect the terminal to the guest's serial line; Ctrl-] leaves."""
    from drivebay.cli.terminal import connect_terminal

    with _running(context, machine) as client:
        path = client.status()["serial"]
    connect_terminal(path)


def register(app: typer.Typer) -> None:
    """Add these commands to a noun."""
    for command in (start, stop, kill, pause, resume, reset, save, wait, status):
        app.command()(command)
    app.command("console")(console_)


def _running(context: typer.Context, machine: str) -> MachineClient:
    from drivebay.service.runtime.running import running

    return running(chosen_home(context), machine)


def _tell(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        console().print(plain(text))


def show(status: dict[str, Any]) -> None:
    """A machine's status (`drivebay.service.runtime.running.machine_status`), for people."""
    state = status["state"]
    if "pid" not in status:
        console().print(plain(f"machine {status['name']!r} is {state}"))
        return
    how = "KVM" if status["accelerator"] == "kvm" else "software emulation"
    minutes = status["seconds"] / 60
    console().print(plain(f"machine {status['name']!r} is {state}, for {minutes:.1f} minutes, with {how}"))
    for trouble in (status["reason"], status["worker_trouble"]):
        if trouble:
            console().print(f"[bold red]{plain(trouble)}[/]")
    for name in ("serial", "vnc"):
        if status[name]:
            console().print(plain(f"{name}: {status[name]}"))
    print_wide(_disks(status["disks"]))


def _disks(disks: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "slot",
        "reads/s",
        "writes/s",
        "read/s",
        "written/s",
        "read",
        "written",
        "errors",
        "image",
    ):
        is_name = heading in ("slot", "image")
        table.add_column(heading, justify="left" if is_name else "right", overflow="fold")
    for slot, disk in disks.items():
        rate = disk.get("rates", {})
        table.add_row(
            plain(slot),
            *(f"{rate.get(name, 0):.0f}" for name in ("reads", "writes")),
            *(format_size(int(rate.get(name, 0))) for name in ("read_bytes", "written_bytes")),
            *(format_size(disk[name]) for name in ("read_bytes", "written_bytes")),
            str(disk["errors"]),
            plain(disk["paths"][0]),
        )
    return table
