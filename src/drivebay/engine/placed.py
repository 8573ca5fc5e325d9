"""A layer in its place: its files numbered among all files of the disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from drivebay.blockmap import BlockState, Packed, Segment, Table
from drivebay.engine.mapentry import OFFSET_MASK, UNIT_SHIFT, pack
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.engine.tables import Entries
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR, ImageFacts


@dataclass(frozen=True, slots=True)
class PlacedLayer:
    """``first_source`` is the disk-wide number of the layer's source 0.

    ``reach`` is how many bytes of the layer its children can see: where one of them ends, the disk
    that it was a child of has ended, so what lies further on below reads as zeros.
    """

    opened: OpenedLayer
    first_source: int
    reach: int
    _starts: list[int] = field(init=False)
    _packed: dict[int, tuple[Entries, Entries]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", [segment.start for segment in self.segments])
        bounds = {s.start: _bounds(s) for s in self.segments if isinstance(s, Packed)}
        object.__setattr__(self, "_packed", bounds)

    @property
    def facts(self) -> ImageFacts:
        """The image's facts."""
        return self.opened.layer.facts

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that cover ``[0, facts.size)``."""
        return self.opened.layer.segments

    @property
    def owned(self) -> bool:
        """Whether a block of this layer may be written in place while the layer is the active one."""
        return self.opened.layer.plan is not None

    def through(self, sources: tuple[FileSource, ...]) -> PlacedLayer:
        """The same layer, read through other sources."""
        twin = copy(self)
        object.__setattr__(twin, "opened", OpenedLayer(self.opened.layer, sources))
        return twin

    def source(self, number: int) -> FileSource:
        """The layer's own source ``number``."""
        return self.opened.sources[number]

    def owns(self, source: int) -> bool:
        """Whether the disk-wide source number is one of this layer's."""
        return 0 <= source - self.first_source < len(self.opened.sources)

    def zero_entry(self) -> int:
        """The map entry for zeros that this layer decides."""
        return pack(BlockState.ZERO, self.first_source)

    def boundaries(self, granule: int, size: int) -> set[int]:
        """Granules of a disk of ``size`` bytes that this layer's segments cut in two."""
        cuts = {segment.start for segment in self.segments} | {self.reach}
        cuts |= {segment.start + segment.length for segment in self.segments}
        return {cut // granule for cut in cuts if cut % granule and cut < size}

    def segment_at(self, position: int) -> Segment:
        """The segment that covers ``position``, which lies within the layer."""
        return self.segments[bisect_right(self._starts, position) - 1]

    def segments_between(self, low: int, high: int) -> Iterator[Segment]:
        """The segments that cover any part of ``low .. high``."""
        for index in range(max(bisect_right(self._starts, low) - 1, 0), len(self.segments)):
            if self.segments[index].start >= high:
                return
            yield self.segments[index]

    def packed_bounds(self, segment: Packed) -> tuple[Entries, Entries]:
        """Where the runs of a packed segment begin and end, as arrays."""
        return self._packed[segment.start]

    @property
    def has_presence(self) -> bool:
        """Whether blocks may be there in part, so that their bitmaps must be read."""
        return any(isinstance(segment, Table) and segment.presence for segment in self.segments)

    def finest(self) -> int:
        """The largest power of two, 512 or more, that divides every cut this layer can make."""
        every = 0
        for segment in self.segments:
            every |= segment.start | segment.start + segment.length
            if isinstance(segment, Table):
                every |= segment.block | (segment.presence.unit if segment.presence else 0)
            elif isinstance(segment, Packed):
                every |= SECTOR
        every |= self.reach
        return max(every & -every, SECTOR)


def _bounds(segment: Packed) -> tuple[Entries, Entries]:
    starts = np.array([run.start for run in segment.runs], np.uint64)
    lengths = np.array([run.length for run in segment.runs], np.uint64)
    return starts, starts + lengths


def finest_block(layers: list[PlacedLayer]) -> int | None:
    """The smallest block of any table among ``layers``, in bytes."""
    blocks = [s.block for layer in layers for s in layer.segments if isinstance(s, Table)]
    return min(blocks, default=None)


def require_addressable(opened: OpenedLayer) -> None:
    """Refuse files with places that a map entry can't hold; only sparse ones can be so long."""
    packed = {s.data for s in opened.layer.segments if isinstance(s, Table) and s.packed is not None}
    for number, source in enumerate(opened.sources):
        limit = OFFSET_MASK + 1 << (0 if number in packed else UNIT_SHIFT)
        if source.size > limit:
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"the file is {source.size} bytes long, but drivebay reads no more than {limit}; "
                "if most of it is a hole, shorten it to its real length",
                path=source.path,
                operation="open",
            )
