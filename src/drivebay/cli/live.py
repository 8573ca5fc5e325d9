"""The live line of a running server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.live import Live

from drivebay.cli.output import console
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.service.serving import DiskServer

_EVERY = 0.5  # seconds: each update takes the interpreter from the serving loop for a moment


@contextmanager
def live_line(server: DiskServer) -> Iterator[None]:
    """Show what ``server`` does, in a line of the terminal, while the block runs."""
    ended = threading.Event()
    with Live(console=console(), auto_refresh=False, transient=True) as live:
        thread = threading.Thread(target=_show, args=(server, live, ended), name="live-line", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _show(server: DiskServer, live: Live, ended: threading.Event) -> None:
    before, then = _counters(server), time.monotonic()
    while not ended.wait(_EVERY):
        counters, now = _counters(server), time.monotonic()
        rates = [(new - old) / (now - then) for new, old in zip(counters, before, strict=True)]
        live.update(_line(server.stats.connections, counters, rates), refresh=True)
        before, then = counters, now


def _counters(server: DiskServer) -> tuple[int, int, int]:
    stats = server.stats
    return stats.requests, stats.read_bytes, stats.written_bytes


def _line(connections: int, counters: tuple[int, int, int], rates: list[float]) -> str:
    requests, read, written = counters
    return (
        f"{connections} clients  {requests} requests ({rates[0]:.0f}/s)  "
        f"read {format_size(read)} ({format_size(int(rates[1]))}/s)  "
        f"written {format_size(written)} ({format_size(int(rates[2]))}/s)"
    )
