"""The commands."""

from __future__ import annotations

from typing import Annotated

import typer

import drivebay as package
from drivebay.cli import (
    attach,
    bandwidth,
    clone,
    content,
    controller,
    create,
    demo,
    doctor,
    edit,
    formats,
    images,
    machine,
    medium_files,
    running,
    serving,
    snapshot_output,
)
from drivebay.cli.home import HomeFolder

app = typer.Typer(
    name="drivebay",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(images.info)
app.command(cls=create.CreateCommand)(create.create)
app.command()(images.check)
app.command()(edit.repair)
app.command("set")(edit.set_)
app.command("formats")(formats.formats_)
app.command("map")(content.map_)
app.command()(content.checksum)
app.command()(content.compare)
app.command()(serving.serve)
app.command()(demo.demo)
app.add_typer(medium_files.app, name="medium")
app.command()(doctor.doctor)
app.command()(doctor.rebuild)
running.register(machine.app)
machine.app.command("clone")(clone.clone)
app.add_typer(machine.app, name="machine")
app.add_typer(controller.app, name="controller")
app.add_typer(bandwidth.app, name="bandwidth")
app.add_typer(snapshot_output.app, name="snapshot")
app.command()(attach.attach)
app.command()(attach.detach)
app.command()(attach.eject)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"drivebay {package.__version__}")
        raise typer.Exit


@app.callback()
def drivebay(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    home: HomeFolder = "",  # noqa: ARG001 - chosen_home reads it
) -> None:
    """Virtual disks of virtual machines: VirtualBox's images and chains, made, checked and served."""
    if context.invoked_subcommand is None:
        print(context.get_help())
