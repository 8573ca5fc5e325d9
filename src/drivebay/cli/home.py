"""Which home the command line means: the option --home stands before the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from drivebay.registry.home import Home

HomeFolder = Annotated[
    str,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="Registry, machines and trash are there. Default: $DRIVEBAY_HOME, else the user's data folder.",
    ),
]


def chosen_home(context: typer.Context) -> Home:
    """The home of this command line; it need not exist yet."""
    from drivebay.registry.home import find_home

    return find_home(context.find_root().params.get("home"))
