"""One image, opened and validated: an immutable value that does no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.blockmap.entry import Entry
from drivebay.blockmap.plan import WritePlan
from drivebay.model import ImageFacts


@dataclass(frozen=True, slots=True)
class Linear:
    """Virtual bytes ``start .. start+length`` lie in one piece at ``offset`` of ``source``.

    The offset is a multiple of 512.
    """

    start: int
    length: int
    source: int
    offset: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """Virtual bytes that read as zeros and hide the parent."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Table:
    """Virtual bytes in blocks of ``block`` bytes (a power of two), looked up in a table.

    Entry number i, for the block at ``start + i * block``, lies at ``root + i * entry.width`` of
    ``source``, where the data lie too.
    """

    start: int
    length: int
    block: int
    source: int
    root: int
    entry: Entry

    @property
    def count(self) -> int:
        """The number of entries that the length needs."""
        return -(-self.length // self.block)

    def span(self, block: int) -> tuple[int, int]:
        """Where a block begins on the virtual disk, and its length (the last one may be cut short)."""
        offset = block * self.block
        return self.start + offset, min(self.block, self.length - offset)


Segment = Linear | Zeros | Table


@dataclass(frozen=True, slots=True)
class Layer:
    """Facts and segments of one image; the segments cover ``[0, facts.size)`` in order.

    Source numbers count the layer's own files, 0 being the image itself. ``plan`` is ``None`` where
    the image can't be written, and ``refusal`` then says why, for humans.
    """

    facts: ImageFacts
    segments: tuple[Segment, ...]
    plan: WritePlan | None = None
    refusal: str | None = None
