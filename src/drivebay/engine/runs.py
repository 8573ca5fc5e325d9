"""What granules are made of, piece by piece: for those that some layer cuts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from drivebay.blockmap import BlockState
from drivebay.engine.decode import layer_entries
from drivebay.engine.mapentry import DATA_FLOOR, STATE_SHIFT, UNIT_SHIFT
from drivebay.engine.placed import PlacedLayer
from drivebay.engine.tables import Entries

_AT_ONCE = 1 << 17  # units looked at together: bounds the memory


class Run(NamedTuple):
    """``length`` bytes at ``start`` (of the granule); ``entry`` holds the offset where they begin."""

    start: int
    length: int
    entry: int


def resolve_runs(
    layers: Sequence[PlacedLayer], granule: int, unit: int, granules: Sequence[int], size: int
) -> dict[int, list[Run]]:
    """The runs of each of ``granules`` (ascending) of a disk of ``size`` bytes, from all layers, top first.

    ``unit`` divides the granule, and no layer cuts anything finer.
    """
    found: dict[int, list[Run]] = {}
    per_granule = granule // unit
    for first, count in _neighbours(granules, max(_AT_ONCE // per_granule, 1)):
        units = min(count * per_granule, -(-size // unit) - first * per_granule)
        entries = _flattened(layers, unit, first * per_granule, units)
        for number in range(count):
            part = entries[number * per_granule : (number + 1) * per_granule]
            length = min(granule, size - (first + number) * granule)
            found[first + number] = runs_of(part, unit, length)
    return found


def _neighbours(granules: Sequence[int], most: int) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for granule in granules:
        if ranges and sum(ranges[-1]) == granule and ranges[-1][1] < most:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((granule, 1))
    return ranges


def _flattened(layers: Sequence[PlacedLayer], unit: int, first: int, count: int) -> Entries:
    result = np.zeros(count, np.uint64)
    for layer in layers:
        open_ones = result == 0
        if not open_ones.any():
            break
        result[open_ones] = layer_entries(layer, unit, first, count)[open_ones]
    return result


def runs_of(entries: Entries, unit: int, length: int) -> list[Run]:
    """Entries of neighbouring units, ``length`` bytes in all, as runs."""
    starts = [*run_starts(entries, unit), len(entries)]
    return [
        Run(begin * unit, min(end * unit, length) - begin * unit, int(entries[begin]))
        for begin, end in pairwise(starts)
    ]


def run_starts(entries: Entries, unit: int) -> list[int]:
    """Where runs begin: neighbours join if they are alike, or data that lies in one piece."""
    states = entries >> np.uint64(STATE_SHIFT)
    step = np.uint64(unit >> UNIT_SHIFT)
    moves = (states == int(BlockState.DATA)).astype(np.uint64) * step
    keys = entries - moves * np.arange(len(entries), dtype=np.uint64)
    breaks = (keys[1:] != keys[:-1]) | (states[1:] == int(BlockState.SPLIT))
    return [0, *(np.flatnonzero(breaks) + 1).tolist()]


def replaced(runs: list[Run], new: Run) -> list[Run]:
    """``runs`` with what ``new`` covers replaced by it; neighbours that continue each other are joined."""
    end = new.start + new.length
    parts = [_cut(run, run.start, min(run.start + run.length, new.start)) for run in runs]
    parts.append(new)
    parts += [_cut(run, max(run.start, end), run.start + run.length) for run in runs]
    joined: list[Run] = []
    for part in parts:
        if part.length <= 0:
            continue
        last = joined[-1] if joined else None
        if last is not None and _cut(last, part.start, part.start + 1).entry == part.entry:
            joined[-1] = last._replace(length=last.length + part.length)
        else:
            joined.append(part)
    return joined


def _cut(run: Run, low: int, high: int) -> Run:
    """The part ``low .. high`` of a run."""
    moved = (low - run.start) >> UNIT_SHIFT if run.entry >= DATA_FLOOR else 0
    return Run(low, high - low, run.entry + moved)
