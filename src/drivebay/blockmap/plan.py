"""How a layer is written: which allocator, which journal, and what must change beside the entries."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal


class Allocator(enum.Enum):
    """Where space for a new block comes from; each is one file of the engine."""

    NONE = "none"  # every byte has its place already
    BUMP_COUNTER = "bump-counter"  # units behind each other, their number kept in a counter
    BUMP_EOF = "bump-eof"  # at the end of the file
    REFCOUNT = "refcount"  # clusters, each with a reference count in the image
    OWN_PLACE = "own-place"  # blocks in a data file, each where it is on the disk; leaf tables as REFCOUNT


class Journal(enum.Enum):
    """What makes entry changes safe; each is one file of the engine."""

    ORDERED = "ordered"  # data, then entries, then directory entries, a sync between them
    VHDX_LOG = "vhdx-log"  # data, then the changed sectors in a log, then in their places


@dataclass(frozen=True, slots=True)
class Field:
    """An unsigned number of ``width`` bytes at ``offset`` of the source that holds the table."""

    offset: int
    width: Literal[4, 8]
    byte_order: Literal["<", ">"]


class MarkKind(enum.Enum):
    """What is written at a mark."""

    RANDOM_UUID = "random-uuid"  # 16 fresh bytes, GUID layout: with each flush that has something to flush
    RANDOM_HEX = "random-hex"  # `digits` fresh hexadecimal digits, as text: once, before the first write
    FIXED = "fixed"  # `opened` before the first write; `closed` (if any) after the last flush


@dataclass(frozen=True, slots=True)
class Mark:
    """Bytes at ``offset`` of ``source`` that change, durably, before the first write after opening.

    Random ones let a parent be told that changed behind its children; fixed ones say "in use".
    """

    offset: int
    kind: MarkKind
    opened: bytes = b""
    closed: bytes = b""
    source: int = 0
    digits: int = 8


@dataclass(frozen=True, slots=True)
class Refcounts:
    """The two-level table of reference counts that the REFCOUNT and OWN_PLACE allocators keep (QCOW2).

    ``root`` is where the table of ``table_clusters`` clusters begins: big-endian 64-bit offsets of blocks,
    each one cluster of big-endian counts of ``bits`` bits (1 to 64; below 8, the lowest bits come first).
    ``place`` is where the header holds root (64 bits) and cluster count (32 bits) next to each other.
    """

    root: int
    table_clusters: int
    cluster: int
    bits: int
    place: int


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where the VHDX_LOG journal works: the log's range, and the offsets of the two headers.

    With ``same_data`` the image keeps the GUID that stands for what guests see of it.
    """

    offset: int
    length: int
    headers: tuple[int, int]
    same_data: bool = False


@dataclass(frozen=True, slots=True)
class WritePlan:
    """Everything the engine needs to write a layer.

    ``zero`` is the raw entry for "zeros here", ``None`` where blocks can't be so marked. ``unit`` is
    the space one block takes in the source: ``lead`` bytes, then the block. ``first`` is where the first
    unit may begin (BUMP_COUNTER: begins) and ``limit`` how many units the format can count, or 0 for no
    limit. ``counter`` holds the number of units in use (BUMP_EOF: where new space begins, in multiples of
    ``align``); it is durable before an entry that needs it.
    ``punch`` tells whether zeroed bytes may be given back to the host.

    New space begins on multiples of ``align``. ``lead_data`` is put in front of a new block's bytes, and
    ``tail`` ends the file, wherever that is. ``leaf_flags`` and ``directory_flags`` go into new entries.
    ``leaf`` is the space of a new leaf table, which is filled with ``absent``, the raw entry of a block
    that is not there.
    For presence bits BESIDE the entry, ``beside`` is their value for data and ``beside_zero`` for zeros.
    """

    allocator: Allocator
    journal: Journal = Journal.ORDERED
    unit: int = 0
    lead: int = 0
    first: int = 0
    limit: int = 0
    leaf_flags: int = 0
    zero: int | None = None
    counter: Field | None = None
    marks: tuple[Mark, ...] = ()
    punch: bool = True
    align: int = 512
    lead_data: bytes = b""
    tail: bytes = b""
    directory_flags: int = 0
    leaf: int = 0
    absent: int = 0
    beside: int = 0
    beside_zero: int = 0
    refcounts: Refcounts | None = None
    log: LogPlace | None = None
