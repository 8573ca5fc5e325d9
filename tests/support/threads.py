"""Threads for tests: whatever one of them raises, the test gets; none is waited for without end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from support.patience import PATIENCE


def start(target: Callable[[], object]) -> Future[object]:
    """Run ``target`` in a thread of its own, which won't keep the process alive."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(target())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def run_all(*targets: Callable[[], object]) -> None:
    """Run all at once, and wait until the last has finished. Raises what the first of them raised."""
    for future in [start(target) for target in targets]:
        future.result(PATIENCE)


class Gate(threading.Event):
    """Something that a thread stops at, until the test opens it. `reached` tells that one stands there."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def stop_here(self) -> None:
        """Wait until the gate is open."""
        self.reached.set()
        assert self.wait(PATIENCE)

    def wait_reached(self) -> None:
        """Wait until a thread stands at the gate."""
        assert self.reached.wait(PATIENCE)
