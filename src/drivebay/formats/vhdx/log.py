"""Replay of the log: what an interrupted writer left to be done (MS-VHDX 2.3.2, 2.3.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from uuid import uuid4

from drivebay.blockmap import FileChange, FileExtent, Files, FileWrite
from drivebay.formats.vhdx.header import LAST_SEQUENCE, Header, Headers
from drivebay.formats.vhdx.logentry import SECTOR, LogEntry, Ring, read_entry
from drivebay.formats.vhdx.overlay import end_of
from drivebay.formats.vhdx.refusal import require, require_known
from drivebay.model import NULL_UUID

MAX_LOG = 64 << 20  # of a log to be replayed: it is held in memory
Stages = tuple[tuple[FileChange, ...], ...]
Entries = dict[int, LogEntry]


def read_replay(files: Files, headers: Headers) -> Stages:
    """What has to be done to the file before it is used, in stages; nothing for an empty log.

    The header gets a new FileWriteGuid, then the changes are made, then both headers say that the log
    is empty. Raises StorageError (rules X18 to X21).
    """
    header = headers.current
    if not header.dirty:
        return ()
    changes = _changes(files, header, headers.active_offset)
    return (_stage(headers.other_offset, header, 1), changes, *emptied(headers))


def emptied(headers: Headers) -> Stages:
    """The headers that say that the log is empty; they follow the one that began the replay."""
    clean = dataclasses.replace(headers.current, log_guid=NULL_UUID)
    return (_stage(headers.active_offset, clean, 2), _stage(headers.other_offset, clean, 3))


def _stage(offset: int, header: Header, steps: int) -> tuple[FileWrite]:
    header = dataclasses.replace(header, sequence=header.sequence + steps, file_write=uuid4())
    return (FileWrite(offset, header.pack()),)


def _changes(files: Files, header: Header, at: int) -> tuple[FileChange, ...]:
    require_known(
        header.log_length <= MAX_LOG,
        files,
        at + 68,
        f"VHDX header: a log of {header.log_length} bytes has to be replayed, but drivebay does so only for "
        f"{MAX_LOG} bytes at most",
    )
    require(
        header.sequence <= LAST_SEQUENCE - 4,
        files,
        at + 8,
        f"VHDX header: the sequence number {header.sequence} can't be counted on",
    )
    ring = Ring(files.read(header.log_offset, header.log_length), header.log_guid)
    sequence = active_sequence(ring)
    require(
        bool(sequence),
        files,
        header.log_offset,
        f"VHDX log: the header says {{{header.log_guid}}}, but the log has no valid sequence of such entries",
    )
    head = sequence[-1]
    require(
        files.size >= head.flushed,
        files,
        files.size,
        f"VHDX log: the file ends at {files.size}, but it was {head.flushed} bytes long: it was truncated",
    )
    changes = tuple(change for entry in sequence for change in entry.changes)
    end = max(files.size, *(end_of(change) for change in changes), head.last)
    return (*changes, FileExtent(files.size, end - files.size)) if end > files.size else changes


def active_sequence(ring: Ring) -> list[LogEntry]:
    """The newest complete sequence, oldest entry first; empty where there is none."""
    entries = {
        start: entry
        for start in range(0, len(ring.data), SECTOR)
        if ring.data.startswith(b"loge", start) and (entry := read_entry(ring, start))
    }
    best: list[LogEntry] = []
    position = 0
    while position < len(ring.data):
        starts = _run(entries, position, len(ring.data))
        found = _complete(entries, starts)
        if found and found[-1].sequence > (best[-1].sequence if best else 0):
            best = found
        position += sum(entries[start].length for start in starts) or SECTOR
    return best


def _run(entries: Entries, start: int, length: int) -> list[int]:
    """Where the entries begin that lie behind each other from ``start`` on, each one number higher."""
    starts = []
    expected = None
    while start in entries and expected in (None, entries[start].sequence):
        starts.append(start)
        expected = entries[start].sequence + 1
        start = (start + entries[start].length) % length
    return starts


def _complete(entries: Entries, starts: Sequence[int]) -> list[LogEntry]:
    """The sequence that the last of the entries ends; empty where its tail is not among them."""
    if not starts or entries[starts[-1]].tail not in starts:
        return []
    first = starts.index(entries[starts[-1]].tail)
    return [entries[start] for start in starts[first:]]
