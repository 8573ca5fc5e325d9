"""The command that serves images."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drivebay.cli.live import live_line
from drivebay.cli.options import AllowStaleParent, Cache, FormatName, Json, Search, opening
from drivebay.cli.output import as_json_value, console, print_json
from drivebay.model import CacheMode
from drivebay.service.addresses import address_of

if TYPE_CHECKING:
    from drivebay.service.serving import DiskServer


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
        from drivebay.service.serving import DiskServer

        with DiskServer(images, options, address=address, read_only=read_only, name=name) as server:
            _stop_on_signals(server)
            ready({"pid": os.getpid(), "exports": [as_json_value(disk) for disk in server.disks]})
            quiet = fork or as_json or not console().is_terminal
            with nullcontext() if quiet else live_line(server):
                server.run()

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


def _stop_on_signals(server: DiskServer) -> None:
    """The first signal ends the service in order; a SIGINT after it ends the process at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
