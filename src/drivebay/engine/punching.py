"""Giving space back to the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from drivebay.engine.source import FileSource


def punch(source: FileSource, ranges: Iterable[tuple[int, int]]) -> None:
    """Give ranges (beginning, end) of a file back. It is a courtesy: where the host refuses, they stay.

    Neighbours go together, for the host takes back whole blocks of its own only.
    """
    for begin, end in _joined(sorted(ranges)):
        with contextlib.suppress(OSError):
            source.zero_range(begin, end - begin, punch=True)


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    held = (0, 0)
    for begin, end in ranges:
        if begin > held[1]:
            if held[0] < held[1]:
                yield held
            held = (begin, end)
        else:
            held = (held[0] if held[1] else begin, max(held[1], end))
    if held[0] < held[1]:
        yield held
