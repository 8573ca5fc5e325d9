"""The command that serves images."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from drivebay.cli.live import live_line
from drivebay.cli.options import AllowStaleParent, Cache, FormatName, Json, Search, opening
from drivebay.cli.output import as_json_value, console, print_json
from drivebay.model import CacheMode
from drivebay.service.addresses import address_of


def serve(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="Image files or block devices.", show_default=False),
    ],
    socket: Annotated[
        str | None,
        typer.Option("--socket", metavar="PATH", help="Unix socket (default: in a new folder)."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="TCP address instead (no encryption).")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Clients may only read.")] = False,
    cache: Cache = CacheMode.WRITEBACK,
    fork: Annotated[
        bool, typer.Option("--fork", help="Return as soon as it listens; the server goes on by itself.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The export's name; default: the file's.")
    ] = None,
    format_name: FormatName = None,
    search: Search = None,
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Serve images over NBD until SIGTERM or Ctrl-C, writable unless --read-only.

    Prints the URL of each export once it listens. What clients wrote is flushed before it ends.
    """
    address = address_of(socket, listen)
    options = opening(format_name, search, allow_stale_parent=allow_stale_parent, cache=cache)

    def run(ready: Callable[[Any], None]) -> None:
        from drivebay.service.ending import Ending
        from drivebay.service.serving import DiskServer

        with DiskServer(images, options, address=address, read_only=read_only, name=name) as server:
            ending = Ending(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            ready({"pid": os.getpid(), "exports": [as_json_value(disk) for disk in server.disks]})
            quiet = fork or as_json or not console().is_terminal
            with server.in_thread(ending.begin), nullcontext() if quiet else live_line(server):
                ending.wait()
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # who asks once more does not want to wait

    def show(facts: Any) -> None:
        if as_json:
            print_json(facts)
            sys.stdout.flush()
        else:
            _print_served(facts, fork=fork)

    if fork:
        from drivebay.service.background import run_in_background

        show(run_in_background(run))
    else:
        run(show)


def _print_served(facts: Any, *, fork: bool) -> None:
    for disk in facts["exports"]:
        print(disk["url"])
    if fork:
        print(f"pid {facts['pid']}")
    sys.stdout.flush()
