"""What covers a byte range, piece by piece: for the granules that layers cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from drivebay.blockmap import BlockState
from drivebay.engine.decode import entry_at
from drivebay.engine.mapentry import state_of
from drivebay.engine.placed import PlacedLayer


class Run(NamedTuple):
    """``length`` bytes at ``start`` (of the granule); ``entry`` holds the offset where they begin."""

    start: int
    length: int
    entry: int


def resolve_runs(layers: Sequence[PlacedLayer], granule: int, index: int, size: int) -> list[Run]:
    """The runs of granule ``index`` of a disk of ``size`` bytes, from all layers, top first."""
    runs: list[Run] = []
    start = index * granule
    position, end = start, min(start + granule, size)
    while position < end:
        entry, reach = _resolve(layers, position, end)
        runs.append(Run(position - start, reach - position, entry))
        position = reach
    return runs


def _resolve(layers: Sequence[PlacedLayer], position: int, end: int) -> tuple[int, int]:
    for layer in layers:
        segment = layer.segment_at(position)
        if segment is None:
            continue
        entry, reach = entry_at(layer, segment, position)
        end = min(end, reach)
        if state_of(entry) != BlockState.ABSENT:
            return entry, end
    return 0, end
