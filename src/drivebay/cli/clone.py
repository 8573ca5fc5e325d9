"""``drivebay machine clone``."""

from __future__ import annotations

from typing import Annotated

import typer

from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import Machine
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json, progress_bar
from drivebay.machines.clone_mode import CloneMode
from drivebay.service.sizes import format_size


def clone(
    context: typer.Context,
    machine: Machine,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Default: the old one, with Clone behind it."),
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option("--snapshot", metavar="SNAPSHOT", help="Copy this, not the current state."),
    ] = None,
    mode: Annotated[
        CloneMode,
        typer.Option(
            "--mode",
            metavar="MODE",
            help="machine: one state. machineandchildren: the snapshot with all that descends from it. all.",
        ),
    ] = CloneMode.MACHINE,
    linked: Annotated[
        bool, typer.Option("--linked", help="Copy nothing: build on what the snapshot holds.")
    ] = False,
    keep_disk_names: Annotated[
        bool, typer.Option("--keep-disk-names", help="Call the new images like the old ones.")
    ] = False,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="FOLDER", help="The new machine's own folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a machine, with images of its own, or as a linked clone of a snapshot."""
    from drivebay.service.clones import clone_machine

    with progress_bar("copying") as progress:
        made = clone_machine(
            chosen_home(context),
            machine,
            name,
            folder=folder,
            mode=mode,
            snapshot=snapshot,
            linked=linked,
            keep_disk_names=keep_disk_names,
            progress=progress,
        )
    if as_json:
        images = [{"uuid": one.uuid, "path": one.path, "parent": one.parent} for one in made.images]
        clone = made.machine
        fields = {"uuid": clone.uuid, "name": clone.name, "folder": clone.folder}
        print_json({**fields, "images": images, "copied": made.copied})
        return
    console().print(f"made machine {plain(made.machine.name)} in {plain(made.machine.folder)}")
    count = f"{len(made.images)} image{'' if len(made.images) == 1 else 's'}"
    console().print(f"{count}, {format_size(made.copied)} copied")
