"""Arguments and options that the commands on machines share."""

from __future__ import annotations

from typing import Annotated

import typer

Machine = Annotated[
    str, typer.Argument(metavar="MACHINE", help="The machine's name or UUID.", show_default=False)
]
Port = Annotated[int | None, typer.Option("--port", metavar="N", help="The controller's port, from 0.")]
Device = Annotated[
    int | None, typer.Option("--device", metavar="N", help="The device on the port (IDE and floppy: 0 or 1).")
]
ControllerName = Annotated[
    str | None, typer.Option("--controller", metavar="NAME", help="The controller (default: one that fits).")
]
