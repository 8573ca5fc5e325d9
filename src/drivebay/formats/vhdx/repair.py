"""What a repair would do to a VHDX image: replay its log, renew damaged copies, drop impossible entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from uuid import uuid4

import numpy as np

from drivebay.blockmap import FileEdit, Files, FileWrite, Layer, RepairStep
from drivebay.formats.vhdx.header import HEADER_OFFSETS
from drivebay.formats.vhdx.image import ENTRY_SIZE, ImageParts, read_parts
from drivebay.formats.vhdx.log import emptied
from drivebay.formats.vhdx.regions import TABLE_OFFSETS, TABLE_SIZE, is_sound
from drivebay.formats.vhdx.scan import BatScan


def repair(files: Files, _layer: Layer) -> Iterator[RepairStep]:
    """The steps, none for a sound image. A log to be replayed comes alone: it decides what the rest is."""
    parts = read_parts(files)
    if parts.replay:
        yield from _replay(parts)
        return
    yield from _renew_header(parts)
    yield from _renew_regions(parts)
    yield from _drop_entries(parts)


def _replay(parts: ImageParts) -> Iterator[RepairStep]:
    opened, changes, *_ = parts.replay
    yield RepairStep("replay the log", (*opened, *changes))
    marked = tuple(change for stage in emptied(parts.headers) for change in stage)
    yield RepairStep("mark the log as empty; repair again for what else may be wrong", marked)


def _renew_header(parts: ImageParts) -> Iterator[RepairStep]:
    for offset, header in zip(HEADER_OFFSETS, parts.headers.copies, strict=True):
        if header is None:
            current = parts.headers.current
            renewed = dataclasses.replace(current, sequence=current.sequence + 1, file_write=uuid4())
            yield RepairStep(
                "renew the damaged header from the other one", (FileWrite(offset, renewed.pack()),)
            )


def _renew_regions(parts: ImageParts) -> Iterator[RepairStep]:
    first, second = (parts.files.read(offset, TABLE_SIZE) for offset in TABLE_OFFSETS)
    sound, damaged = (first, TABLE_OFFSETS[1]) if is_sound(first) else (second, TABLE_OFFSETS[0])
    if first != second:
        yield RepairStep("renew the region table's other copy", (FileWrite(damaged, sound),))


def _drop_entries(parts: ImageParts) -> Iterator[RepairStep]:
    """One step for all entries: a slice of the BAT is written as a whole."""
    changes: list[FileEdit] = []
    count = 0
    for faults in BatScan(parts).slices():
        wrong = faults.state | faults.outside | faults.overlap | faults.no_bitmap | faults.bitmap
        if wrong.any():
            raw = faults.raw.copy()
            raw[wrong] = 0
            offset = parts.bat.offset + faults.first * ENTRY_SIZE
            changes.append(FileWrite(offset, raw.astype("<u8").tobytes()))
            count += int(np.count_nonzero(wrong))
    if changes:
        yield RepairStep(
            f"drop {count} BAT entries that can't be: their blocks read as {_instead(parts)} then",
            tuple(changes),
            loses=True,
        )


def _instead(parts: ImageParts) -> str:
    return "the parent's" if parts.metadata.has_parent else "zeros"
