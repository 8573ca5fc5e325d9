"""How long tests wait, so that a machine that stands still for seconds makes none of them fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 60.0  # seconds until something counts as hanging


def until(condition: Callable[[], object], what: str = "it happens", timeout: float = PATIENCE) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


@contextmanager
def processor_time(limit: float) -> Iterator[None]:
    """Fail if the block took this process more than ``limit`` seconds of work; waiting does not count."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < limit
