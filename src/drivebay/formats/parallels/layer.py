"""Pieces of a Parallels disk turned into the description that the engine executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivebay.blockmap import (
    Allocator,
    BlockState,
    Entry,
    Files,
    Layer,
    Linear,
    Mark,
    MarkKind,
    Rule,
    Segment,
    Table,
    WritePlan,
)
from drivebay.formats.parallels.extension import Extension, read_extension
from drivebay.formats.parallels.header import (
    CLOSED,
    EMPTY,
    ENTRY_SIZE,
    EXTENSION_OFFSET,
    FLAGS_OFFSET,
    HEADER_SIZE,
    IN_USE,
    IN_USE_OFFSET,
    Header,
    read_header,
)
from drivebay.model import SECTOR, ImageFacts

_ALL_BITS = 0xFFFFFFFF
_RULES = (Rule(_ALL_BITS, 0, BlockState.ABSENT),)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the disk in one file: expanding where there is a ``header``, else plain bytes.

    ``start`` and ``length`` in bytes of the disk; ``source`` is the layer's number of the file.
    """

    start: int
    length: int
    source: int
    header: Header | None = None
    extension: Extension = Extension.NONE

    def segment(self) -> Segment:
        """How the engine reads the piece."""
        if self.header is None:
            return Linear(self.start, self.length, self.source, offset=0)
        return Table(
            start=self.start,
            length=self.length,
            block=self.header.block,
            source=self.source,
            root=HEADER_SIZE,
            entry=Entry(ENTRY_SIZE, "<", rules=_RULES, mask=_ALL_BITS, scale=self.header.scale),
        )


def open_expanding(files: Files) -> Layer:
    """Describe a single image file; reads the header only, so it costs the same whatever the size."""
    header = read_header(files)
    piece = Piece(0, header.size, 0, header, read_extension(files, header))
    plan, refusal = plan_of([piece])
    facts = ImageFacts(
        format="parallels",
        variant="dynamic",
        size=header.size,
        block_size=header.block,
        pchs=header.geometry,
        details=_details(header),
    )
    return Layer(facts, (piece.segment(),), plan, refusal)


def plan_of(pieces: Sequence[Piece]) -> tuple[WritePlan | None, str | None]:
    """The plan that writes all pieces, or the reason why there is none."""
    headers = [piece.header for piece in pieces if piece.header is not None]
    refusal = _refusal(pieces, headers)
    if refusal is not None:
        return None, refusal
    if not headers:
        return WritePlan(Allocator.NONE), None
    block = headers[0].block
    plan = WritePlan(
        allocator=Allocator.BUMP_EOF,
        unit=block,
        first=min(header.first_block for header in headers),  # a small piece has a small table
        align=block if _on_grid(headers) else SECTOR,
        marks=tuple(mark for piece in pieces for mark in _marks(piece)),
    )
    return plan, None


def _refusal(pieces: Sequence[Piece], headers: list[Header]) -> str | None:
    if any(piece.extension is Extension.FORBIDS for piece in pieces):
        return "it has an extension that only the program which made it can keep right"
    if len({header.block for header in headers}) > 1:
        return "its pieces have blocks of different sizes"
    if not _on_grid(headers) and any(header.scale != SECTOR for header in headers):
        return "its pieces lay out their blocks in different ways"
    return None


def _on_grid(headers: list[Header]) -> bool:
    """Whether all blocks begin at multiples of their size, as the newer layout demands."""
    return all(header.first_block % header.block == 0 for header in headers)


def _marks(piece: Piece) -> list[Mark]:
    header = piece.header
    if header is None:
        return []
    marks = [
        Mark(
            IN_USE_OFFSET,
            MarkKind.FIXED,
            opened=IN_USE.to_bytes(4, "little"),
            closed=CLOSED.to_bytes(4, "little"),
            source=piece.source,
        )
    ]
    if header.flags & EMPTY:
        flags = header.flags & ~EMPTY
        opened = flags.to_bytes(4, "little")
        marks.append(Mark(FLAGS_OFFSET, MarkKind.FIXED, opened=opened, source=piece.source))
    if piece.extension is Extension.DROP:
        marks.append(Mark(EXTENSION_OFFSET, MarkKind.FIXED, opened=bytes(8), source=piece.source))
    return marks


def _details(header: Header) -> dict[str, int | str]:
    return {
        "magic": header.magic.decode(),
        "version": header.version,
        "table entries": header.entries,
        "data offset": header.data_offset * SECTOR,
        "in use": "yes" if header.in_use == IN_USE else "no",
        "flags": header.flags,
        "extension offset": header.extension * SECTOR,
    }
