"""How a layer is written: which allocator, which journal, and what must change beside the entries."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal


class Allocator(enum.Enum):
    """Where space for a new block comes from; each is one file of the engine."""

    NONE = "none"  # every byte has its place already
    BUMP_COUNTER = "bump-counter"  # units behind each other, their number kept in a counter


class Journal(enum.Enum):
    """What makes entry changes safe; each is one file of the engine."""

    ORDERED = "ordered"  # data, then entries, a sync between them


@dataclass(frozen=True, slots=True)
class Field:
    """An unsigned number of ``width`` bytes at ``offset`` of source 0."""

    offset: int
    width: Literal[4, 8]
    byte_order: Literal["<", ">"]


class MarkKind(enum.Enum):
    """What is written at a mark."""

    RANDOM_UUID = "random-uuid"  # 16 fresh bytes, GUID layout


@dataclass(frozen=True, slots=True)
class Mark:
    """Bytes at ``offset`` of source 0 that change, durably, before the first write after opening.

    They change again with each flush that has something to flush, so that a parent which changed
    behind its children can be told.
    """

    offset: int
    kind: MarkKind


@dataclass(frozen=True, slots=True)
class WritePlan:
    """Everything the engine needs to write a layer.

    ``zero`` is the raw entry for "zeros here", ``None`` where blocks can't be so marked. ``unit`` is
    the space one block takes in the source: ``lead`` bytes, then the block. ``first`` is where unit 0
    begins and ``limit`` how many units the format can count. ``counter`` holds the number of units in
    use; it is durable before an entry that needs it. ``punch`` tells whether zeroed bytes may be
    given back to the host.
    """

    allocator: Allocator
    journal: Journal = Journal.ORDERED
    unit: int = 0
    lead: int = 0
    first: int = 0
    limit: int = 0
    leaf_flags: int = 0
    zero: int | None = None
    counter: Field | None = None
    marks: tuple[Mark, ...] = ()
    punch: bool = True
