"""What a repair of a Parallels image would do: drop dead pointers, part shared blocks, clear the mark."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import FileCopy, FileExtent, Files, FileWrite, Layer, RepairStep
from drivebay.formats.parallels.header import (
    CLOSED,
    DATA_OFFSET,
    ENTRIES_OFFSET,
    ENTRY_SIZE,
    IN_USE,
    IN_USE_OFFSET,
    MAGIC_2,
)
from drivebay.formats.parallels.table import Entries, ExpandingFile, TableScan, expanding_files, scan
from drivebay.model import SECTOR

_AT_ONCE = 1024  # entries that one step changes


def repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    """The steps that make the image sound; none for a sound one. Raises StorageError if it can't be read."""
    for file in expanding_files(files, layer):
        found = scan(file)
        yield from _dropped(
            file, found.bad, "point where no block is: they can't be read now, and then will be"
        )
        yield from _dropped(file, found.beyond, "lie behind the disk's end, where nothing can be read")
        yield from _shortened(file, found)
        yield from _begun_earlier(file, found)
        yield from _parted(file, found)
        if file.header.in_use == IN_USE:
            closed = CLOSED.to_bytes(4, "little")
            change = FileWrite(IN_USE_OFFSET, closed, file.name)
            yield RepairStep("clear the mark that says the image is in use", (change,))


def _dropped(file: ExpandingFile, entries: Entries, why: str) -> Iterator[RepairStep]:
    for first in range(0, len(entries.blocks), _AT_ONCE):
        part = range(first, min(first + _AT_ONCE, len(entries.blocks)))
        changes = tuple(FileWrite(entries.place(index), bytes(ENTRY_SIZE), file.name) for index in part)
        yield RepairStep(f"free {len(changes)} entries that {why} absent", changes)


def _shortened(file: ExpandingFile, found: TableScan) -> Iterator[RepairStep]:
    """Where blocks lie in the part of the table that no block of the disk needs, its length is wrong."""
    if len(found.inside.blocks):
        needed = file.header.entries_needed
        change = FileWrite(ENTRIES_OFFSET, needed.to_bytes(4, "little"), file.name)
        message = f"say in the header that the table has {needed} entries, as the disk needs"
        yield RepairStep(f"{message}, not {file.header.entries}: blocks lie behind them", (change,))


def _begun_earlier(file: ExpandingFile, found: TableScan) -> Iterator[RepairStep]:
    """Where blocks lie before the data offset, that is too high."""
    if len(found.early.blocks):
        offset = file.header.behind_table(shortened=bool(len(found.inside.blocks)))
        change = FileWrite(DATA_OFFSET, (offset // SECTOR).to_bytes(4, "little"), file.name)
        message = (
            f"say in the header that blocks begin at {offset}, not at {file.header.data_offset * SECTOR}"
        )
        yield RepairStep(message, (change,))


def _parted(file: ExpandingFile, found: TableScan) -> Iterator[RepairStep]:
    """Each entry but the first gets a copy of the bytes at the file's end: all read as before."""
    header = file.header
    step = header.block if header.magic == MAGIC_2 or found.end % header.block == 0 else 1
    end = max(file.files.size, found.end)
    end += -(end - found.end if step == 1 else end) % header.block
    for index, offset in enumerate(found.shared.offsets.tolist()):
        block = int(found.shared.blocks[index])
        entry = (end // header.scale).to_bytes(ENTRY_SIZE, "little")
        changes = (
            FileExtent(end, header.block, file=file.name),
            FileCopy(offset, end, header.block, file.name),
            FileWrite(found.shared.place(index), entry, file.name),
        )
        yield RepairStep(f"give block {block} its own copy of the shared bytes at {offset}", changes)
        end += header.block
