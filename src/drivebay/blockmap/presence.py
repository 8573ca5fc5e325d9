"""Bitmaps that say which parts of a block its layer has."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from drivebay.blockmap.entry import BlockState, Entry


class PresencePlace(enum.Enum):
    """Where a block's bitmap lies."""

    LEAD = "lead"  # in front of the block's bytes, `Presence.lead` bytes before them
    BESIDE = "beside"  # 64 bits right behind the entry: low half "data here", high half "zeros here"
    INTERLEAVED = "interleaved"  # in a bitmap block that the table's foreign entries point to


@dataclass(frozen=True, slots=True)
class Presence:
    """Which parts of a block in state SPLIT are data here: one bit for each ``unit`` bytes.

    A clear bit means ``clear`` (ABSENT or ZERO). ``bit_order`` is that within a byte: "msb" begins with
    the highest bit. For INTERLEAVED, ``entry`` is how a foreign entry reads, and one bitmap serves as many
    blocks as lie between two foreign entries. BESIDE has the byte order of the entries, "lsb" order, and
    64 / 2 units a block.
    """

    place: PresencePlace
    unit: int
    bit_order: Literal["msb", "lsb"] = "lsb"
    clear: BlockState = BlockState.ABSENT
    lead: int = 0
    entry: Entry | None = None
