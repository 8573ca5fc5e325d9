"""What a VHD needs to be sound again: footers that agree, checksums that fit, a table that is safe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from drivebay.blockmap import FileEdit, Files, FileWrite, Layer, RepairStep
from drivebay.formats.vhd.footer import FOOTER_SIZE
from drivebay.formats.vhd.header import ABSENT, ENTRY_SIZE, Header
from drivebay.formats.vhd.rules import Image, read_image
from drivebay.formats.vhd.table import Entries, TableScan, read_table, scan_table


def repair(files: Files, _layer: Layer) -> Iterator[RepairStep]:
    """The steps, each of which leaves an image that opens. Raises StorageError if it can't be read."""
    image = read_image(files)
    header = image.header
    scan = scan_table(files, image, header) if header else None
    yield from _repair_copy(image)
    yield from _repair_end(files, image, scan)
    if header is not None and scan is not None:
        yield from _repair_header(image, header, scan)
        yield from _repair_table(files, header, scan)


def _repair_copy(image: Image) -> Iterator[RepairStep]:
    right = image.footer.pack()
    in_front = image.footers.in_front
    if image.header is not None and (in_front is None or in_front.data != right):
        yield RepairStep("write the footer's copy at the beginning of the file", (FileWrite(0, right),))


def _repair_end(files: Files, image: Image, scan: TableScan | None) -> Iterator[RepairStep]:
    right = image.footer.pack()
    place = _place_of_footer(files, image, scan)
    if files.size - place != FOOTER_SIZE or files.read(place, FOOTER_SIZE) != right:
        yield RepairStep(f"write the footer at the file's end, at {place}", (FileWrite(place, right),))


def _place_of_footer(files: Files, image: Image, scan: TableScan | None) -> int:
    """Where the footer is, or behind everything where there is none or it lies in a block."""
    at_end = image.footers.at_end
    free = scan.end if scan else image.size
    if at_end and at_end.offset >= free:
        return at_end.offset
    last = files.size - FOOTER_SIZE
    if last >= max(free, FOOTER_SIZE) and last % FOOTER_SIZE == 0 and not at_end:
        return last
    return files.size + -files.size % FOOTER_SIZE


def _repair_header(image: Image, header: Header, scan: TableScan) -> Iterator[RepairStep]:
    right, message = header, "give the dynamic header the checksum that fits it"
    if scan.inside_table.count:
        right = dataclasses.replace(header, entries=header.blocks(image.size))
        message = (
            f"say in the dynamic header that the table has {right.entries} entries, as the disk needs, not "
            f"{header.entries}: blocks lie behind them"
        )
    if right != header or not image.header_sound:
        yield RepairStep(message, (FileWrite(image.footer.data_offset, right.pack()),))


def _repair_table(files: Files, header: Header, scan: TableScan) -> Iterator[RepairStep]:
    if scan.wrong:
        faults = (scan.outside, scan.inside_headers, scan.overlapping)
        messages = "; ".join(fault.message for fault in faults if fault.count)
        wrong = np.unique(np.concatenate(scan.wrong))
        changes = tuple(_freed(files, header, wrong))
        yield RepairStep(f"free the blocks of {messages}", changes, loses=True)


def _freed(files: Files, header: Header, wrong: Entries) -> Iterator[FileEdit]:
    for first, entries in read_table(files, header):
        low, high = np.searchsorted(wrong, (first, first + len(entries)))
        if low < high:
            entries[wrong[low:high] - first] = ABSENT
            yield FileWrite(header.table_offset + first * ENTRY_SIZE, entries.astype(">u4").tobytes())
