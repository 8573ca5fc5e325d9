"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from drivebay.model import CacheMode
from drivebay.service.options import OpenOptions

Image = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Image file or block device.", show_default=False)
]
FormatName = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="NAME", help="The image's format, not probed then (see drivebay formats)."
    ),
]
Snapshot = Annotated[
    str, typer.Option("--snapshot", metavar="NAME", help="A snapshot in the image's file instead.")
]
Search = Annotated[
    list[str] | None,
    typer.Option(
        "--search", metavar="DIR", help="Look for parents here, too (a folder, or a file); repeatable."
    ),
]
SearchFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        metavar="DIR",
        help="Allow the image's further files to be here (or this file); repeatable.",
    ),
]
AllowStaleParent = Annotated[
    bool, typer.Option("--allow-stale-parent", help="Accept a parent that changed behind its child.")
]
Json = Annotated[bool, typer.Option("--json", help="Print facts, and errors, as JSON.")]
Cache = Annotated[
    CacheMode, typer.Option("--cache", metavar="MODE", help="writeback, writethrough, unsafe or direct.")
]


def opening(
    format_name: str | None = None,
    search: list[str] | None = None,
    *,
    allow_stale_parent: bool = False,
    cache: CacheMode = CacheMode.WRITEBACK,
    snapshot: str = "",
) -> OpenOptions:
    """The options as the service takes them."""
    return OpenOptions(format_name, tuple(search or ()), allow_stale_parent, cache, snapshot)
