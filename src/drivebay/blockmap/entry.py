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
    SPLIT = 3  # several runs: in an entry, the presence bitmap decides; in the map, see the page's run list
    PACKED = 4  # compressed: must be unpacked as a whole
    DATA = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """Raw entries with ``raw & mask == value`` are in ``state``."""

    mask: int
    value: int
    state: BlockState


@dataclass(frozen=True, slots=True)
class Entry:
    """A table entry of ``width`` bytes; the next one begins ``stride`` bytes after it (0: ``width``).

    The first rule that matches gives the state; where none matches it is DATA, and the block's bytes
    begin at ``base + ((raw & mask) >> shift) * scale`` in the source: a multiple of 512. A DATA entry is
    exclusively the layer's own, so that it may be written in place, if all bits of ``owned`` are set.

    In read-only formats, ``((raw & fine_mask) >> fine_shift) * fine_scale`` is added to the offset.
    """

    width: Literal[4, 8]
    byte_order: Literal["<", ">"]
    rules: tuple[Rule, ...]
    mask: int
    scale: int
    base: int = 0
    shift: int = 0
    owned: int = 0
    stride: int = 0
    fine_mask: int = 0
    fine_shift: int = 0
    fine_scale: int = 0

    @property
    def step(self) -> int:
        """Bytes from one entry to the next."""
        return self.stride or self.width

    def encode(self, offset: int) -> int:
        """The raw entry (without flags) of a block whose bytes begin at ``offset`` in the source."""
        return (((offset - self.base) // self.scale) << self.shift) & self.mask

    def offset(self, raw: int) -> int:
        """Where the bytes of a DATA entry begin in the source."""
        coarse = ((raw & self.mask) >> self.shift) * self.scale
        return self.base + coarse + ((raw & self.fine_mask) >> self.fine_shift) * self.fine_scale

    def state(self, raw: int) -> BlockState:
        """The state of a raw entry."""
        return next((rule.state for rule in self.rules if raw & rule.mask == rule.value), BlockState.DATA)
