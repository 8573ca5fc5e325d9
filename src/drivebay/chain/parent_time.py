"""Whether a parent's file was changed since its child was made, where the child records when that was."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime

from drivebay.chain.candidate import Wanted
from drivebay.chain.gate import Gate
from drivebay.errors import StorageError

_COARSE = 2  # seconds: some file systems count no finer


def time_note(child: Wanted, gate: Gate) -> str | None:
    """A note if the parent's file was changed at another time than ``child`` recorded, as far as is known.

    Only the names that the child records are looked at. It is no refusal: copying a file may change its
    time, and a program may put it back.
    """
    recorded = child.facts.parent_modified
    found = None if recorded is None else _modified(child, gate)
    if recorded is None or found is None or abs(found[1] - recorded) <= _COARSE:
        return None
    path, seconds = found
    times = f"{_moment(recorded)} when this child was made, and at {_moment(seconds)} now"
    return f"its parent {path} was last changed at {times}: the two may not fit any more"


def _modified(child: Wanted, gate: Gate) -> tuple[str, int] | None:
    for name in child.facts.parent_names:
        with contextlib.suppress(StorageError, OSError):
            path = gate.admit(name, child.path)
            return path, int(os.stat(path).st_mtime)
    return None


def _moment(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):
        return f"{seconds} s after 1970"
