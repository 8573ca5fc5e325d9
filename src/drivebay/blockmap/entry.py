"""How one table entry reads."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal


class BlockState(enum.IntEnum):
    """What a table says of a block; the values are the state bits of the engine's map.

    DATA is above all others, so that one comparison tells the fast case from the rest.
    """

    ABSENT = 0  # this layer says nothing: ask the parent
    ZERO = 1  # zeros here: hides the parent's data
    CORRUPT = 2  # points where it must not: reading it is an error
    SPLIT = 3  # several runs: see the page's run list
    DATA = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """Raw entries with ``raw & mask == value`` are in ``state``."""

    mask: int
    value: int
    state: BlockState


@dataclass(frozen=True, slots=True)
class Entry:
    """A table entry of ``width`` bytes.

    The first rule that matches gives the state; where none matches it is DATA, and the block's bytes
    begin at ``base + (raw & mask) * scale`` in the source. Base and scale are multiples of 512.
    """

    width: Literal[4, 8]
    byte_order: Literal["<", ">"]
    rules: tuple[Rule, ...]
    mask: int
    scale: int
    base: int

    def encode(self, offset: int) -> int:
        """The raw entry (without flags) of a block whose bytes begin at ``offset`` in the source."""
        return ((offset - self.base) // self.scale) & self.mask
