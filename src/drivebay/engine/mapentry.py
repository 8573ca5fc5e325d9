"""The engine's map entry: 64 bits that say where a granule of the virtual disk lies.

state (4) | in place (1) | source (11) | offset in 512-byte units (48). "In place" means: of the top
layer, and owned by it alone, so that a write may go straight there.
"""

from __future__ import annotations

from drivebay.blockmap import BlockState

STATE_SHIFT = 60
TAG_SHIFT = 48  # state, in place and source together
UNIT_SHIFT = 9
IN_PLACE = 1 << 59
SOURCE_LIMIT = 1 << 11
OFFSET_MASK = (1 << TAG_SHIFT) - 1

#: Entries at or above this are DATA: one comparison tells the fast case.
DATA_FLOOR = BlockState.DATA << STATE_SHIFT


def pack(state: BlockState, source: int, offset: int = 0, *, in_place: bool = False) -> int:
    """The entry for a granule at byte ``offset`` (a multiple of 512) of ``source``."""
    entry = (state << STATE_SHIFT) | (source << TAG_SHIFT) | (offset >> UNIT_SHIFT)
    return entry | IN_PLACE if in_place else entry


def state_of(entry: int) -> BlockState:
    """The entry's state."""
    return BlockState(entry >> STATE_SHIFT)


def source_of(entry: int) -> int:
    """The number of the source that decides (for ABSENT: meaningless)."""
    return (entry >> TAG_SHIFT) & (SOURCE_LIMIT - 1)


def offset_of(entry: int) -> int:
    """The byte offset in the source where the granule begins."""
    return (entry & OFFSET_MASK) << UNIT_SHIFT
