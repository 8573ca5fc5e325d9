"""Metadata contexts: what BLOCK_STATUS can tell about an extent, and how clients name it.

``base:allocation`` is defined by the NBD protocol ("Metadata querying"); ``qemu:allocation-depth`` counts
the layer that decides an extent: 1 is the active image, 2 its parent, 0 means that no layer holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from drivebay.exports.nbd.constants import StateFlag
from drivebay.model import Extent, ExtentState

_HOLE = int(StateFlag.HOLE | StateFlag.ZERO)


@dataclass(frozen=True, slots=True)
class MetaContext:
    """One context: its name, the number that replies carry, and the flags it gives an extent."""

    name: str
    id: int
    flags: Callable[[Extent], int]


def _allocation(extent: Extent) -> int:
    return 0 if extent.state is ExtentState.DATA else _HOLE


def _depth(extent: Extent) -> int:
    return 0 if extent.depth is None else extent.depth + 1


CONTEXTS = (
    MetaContext("base:allocation", 1, _allocation),
    MetaContext("qemu:allocation-depth", 2, _depth),
)


def listed(queries: Sequence[str]) -> list[MetaContext]:
    """The contexts that LIST_META_CONTEXT shows: no query means all, ``base:`` all of that namespace."""
    if not queries:
        return list(CONTEXTS)
    return [context for context in CONTEXTS if any(_matches(context, query) for query in queries)]


def selected(queries: Sequence[str]) -> list[MetaContext]:
    """The contexts that SET_META_CONTEXT selects: exact names only."""
    return [context for context in CONTEXTS if context.name in queries]


def _matches(context: MetaContext, query: str) -> bool:
    return context.name == query or (query.endswith(":") and context.name.startswith(query))


def describe(
    extents: Iterable[Extent], contexts: Sequence[MetaContext], *, limit: int, longest: int
) -> dict[int, list[tuple[int, int]]]:
    """Descriptors ``(length, flags)`` by context id, neighbours with equal flags merged.

    Stops at ``limit`` extents; no descriptor is longer than ``longest`` bytes.
    """
    found: dict[int, list[tuple[int, int]]] = {context.id: [] for context in contexts}
    for count, extent in enumerate(extents):
        if count == limit:
            break
        for context in contexts:
            _append(found[context.id], extent.length, context.flags(extent), longest)
    return found


def _append(descriptors: list[tuple[int, int]], length: int, flags: int, longest: int) -> None:
    if descriptors and descriptors[-1][1] == flags and descriptors[-1][0] + length <= longest:
        descriptors[-1] = (descriptors[-1][0] + length, flags)
        return
    while length > longest:
        descriptors.append((longest, flags))
        length -= longest
    descriptors.append((length, flags))
