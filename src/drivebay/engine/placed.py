"""A layer in its place: its files numbered among all files of the disk."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.blockmap import BlockState, Segment, Table
from drivebay.engine.mapentry import pack
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.model import ImageFacts


@dataclass(frozen=True, slots=True)
class PlacedLayer:
    """``first_source`` is the disk-wide number of the layer's source 0.

    ``reach`` is how many bytes of the layer its children can see: where one of them ends, the disk
    that it was a child of has ended, so what lies further on below reads as zeros.
    """

    opened: OpenedLayer
    first_source: int
    reach: int

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

    def source(self, number: int) -> FileSource:
        """The layer's own source ``number``."""
        return self.opened.sources[number]

    def zero_entry(self) -> int:
        """The map entry for zeros that this layer decides."""
        return pack(BlockState.ZERO, self.first_source)

    def boundaries(self, granule: int, size: int) -> set[int]:
        """Granules of a disk of ``size`` bytes that this layer's segments cut in two."""
        cuts = {segment.start for segment in self.segments} | {self.reach}
        cuts |= {segment.start + segment.length for segment in self.segments}
        return {cut // granule for cut in cuts if cut % granule and cut < size}

    def segment_at(self, position: int) -> Segment | None:
        """The segment that covers ``position``; ``None`` beyond the layer's reach."""
        if position >= self.reach:
            return None
        for segment in self.segments:
            if segment.start <= position < segment.start + segment.length:
                return segment
        return None


def finest_block(layers: list[PlacedLayer]) -> int | None:
    """The smallest block of any table among ``layers``, in bytes."""
    blocks = [s.block for layer in layers for s in layer.segments if isinstance(s, Table)]
    return min(blocks, default=None)
