"""Compressed blocks: readable, never writable in place."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Codec(enum.Enum):
    """How packed bytes are unpacked; each is one function of the engine."""

    DEFLATE = "deflate"  # raw deflate, without a header (RFC 1951)
    ZLIB = "zlib"  # RFC 1950
    ZSTD = "zstd"  # RFC 8878
    BZIP2 = "bzip2"
    LZMA = "lzma"  # an .xz stream, or LZMA alone
    LZFSE = "lzfse"
    ADC = "adc"  # Apple Data Compression
    STORED = "stored"  # as they are; unlike DATA, they may begin at any byte


@dataclass(frozen=True, slots=True)
class PackedEntry:
    """How a raw entry in state PACKED is followed.

    The packed bytes begin ``header`` bytes after ``(raw & mask) * scale`` in the data source and take
    ``longest`` bytes at most; the codec finds their end. Where ``sectors_mask`` is not 0, they end in the
    512-byte sector that lies ``(raw >> sectors_shift) & sectors_mask`` sectors after that of their first.
    """

    codec: Codec
    mask: int
    longest: int
    scale: int = 1
    header: int = 0
    sectors_shift: int = 0
    sectors_mask: int = 0


@dataclass(frozen=True, slots=True)
class PackedRun:
    """``length`` virtual bytes at ``start``, packed into ``size`` bytes at ``offset`` of the source.

    Start and length are multiples of 512; a run is unpacked as a whole, so its length is moderate.
    """

    start: int
    length: int
    offset: int
    size: int
    codec: Codec
