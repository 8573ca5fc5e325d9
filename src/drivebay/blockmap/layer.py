"""One image, opened and validated: an immutable value that does no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.blockmap.entry import Entry
from drivebay.blockmap.filechange import FileChange
from drivebay.blockmap.packed import PackedEntry, PackedRun
from drivebay.blockmap.plan import WritePlan
from drivebay.blockmap.presence import Presence
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
class Packed:
    """Virtual bytes in packed pieces of different lengths.

    ``runs`` are in order of their starts, lie within the segment and don't overlap; what no run covers
    reads as zeros and hides the parent. There may be hundreds of thousands of them: bisect.
    """

    start: int
    length: int
    source: int
    runs: tuple[PackedRun, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """The upper level of a two-level table: ``count`` entries at the table's ``root``.

    A DATA entry says where a leaf table of ``per_leaf`` entries begins; any other state stands for
    ``per_leaf`` blocks in that state.
    """

    entry: Entry
    per_leaf: int
    count: int


@dataclass(frozen=True, slots=True)
class Table:
    """Virtual bytes in blocks of ``block`` bytes (a multiple of 512), looked up in a table.

    Entry number i, for the block at ``start + i * block``, lies at ``root + i * entry.step`` of
    ``source``; with ``interleave`` n, a foreign entry follows every n entries. With a ``directory`` the
    root is where that begins. The blocks' bytes lie in ``data_source`` (``None``: in ``source``).
    ``presence`` is needed where an entry can be SPLIT, ``packed`` where one can be PACKED.

    A DATA block must lie within its file (the disk's last block: the part that the disk has); with
    ``short_tail`` the file may end within a block, and what it lacks reads as zeros. ``mirrors`` are the
    roots of redundant directories in the same file, each with leaf tables of its own; only writes use them.
    """

    start: int
    length: int
    block: int
    source: int
    root: int
    entry: Entry
    directory: Directory | None = None
    interleave: int = 0
    presence: Presence | None = None
    packed: PackedEntry | None = None
    data_source: int | None = None
    short_tail: bool = False
    mirrors: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """The number of entries that the length needs."""
        return -(-self.length // self.block)

    @property
    def data(self) -> int:
        """The source of the blocks' bytes."""
        return self.source if self.data_source is None else self.data_source

    def span(self, block: int) -> tuple[int, int]:
        """Where a block begins on the virtual disk, and its length (the last one may be cut short)."""
        offset = block * self.block
        return self.start + offset, min(self.block, self.length - offset)


Segment = Linear | Zeros | Table | Packed


@dataclass(frozen=True, slots=True)
class Layer:
    """Facts and segments of one image; the segments cover ``[0, facts.size)`` in order.

    Source numbers count the layer's own files: 0 is the image itself, ``sources[i]`` is the name, as
    given to `Files.beside`, of source i + 1. ``plan`` is ``None`` where the image can't be written, and
    ``refusal`` then says why, for humans.

    ``replay`` is what an interrupted writer left in the image's log: changes of source 0, in stages. The
    description holds for the file as all of them leave it. Who writes applies them first, each stage
    durable before the next; who only reads does so through them.
    """

    facts: ImageFacts
    segments: tuple[Segment, ...]
    plan: WritePlan | None = None
    refusal: str | None = None
    sources: tuple[str, ...] = ()
    replay: tuple[tuple[FileChange, ...], ...] = ()
