"""What opening a Parallels image leaves unread: the block tables, held against the files."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Layer
from drivebay.formats.parallels.header import (
    CLOSED,
    DATA_OFFSET,
    EMPTY,
    FLAGS_OFFSET,
    IN_USE,
    IN_USE_OFFSET,
    MAGIC_2,
    Header,
)
from drivebay.formats.parallels.table import Entries, ExpandingFile, TableScan, expanding_files, scan
from drivebay.model import SECTOR, Finding, Severity


def check(files: Files, layer: Layer) -> Iterator[Finding]:
    """Findings about all expanding files of an image; raises StorageError if one can't be read.

    In a bundle each message begins with the file's name.
    """
    for file in expanding_files(files, layer):
        for finding in _check_file(file):
            message = f"{file.name}: {finding.message}" if file.name else finding.message
            yield Finding(finding.severity, finding.code, message, finding.offset)


def _check_file(file: ExpandingFile) -> Iterator[Finding]:
    found = scan(file)
    yield from _check_header(file.header, found)
    what = "point into the header, the table or out of the file"
    yield from _fault(found.bad, Severity.ERROR, "outside", what)
    yield from _fault(found.inside, Severity.ERROR, "table-length", "point into the table, which is too long")
    yield from _fault(found.early, Severity.ERROR, "early", "point before the header's data offset")
    yield from _fault(found.shared, Severity.ERROR, "doubled", "point to bytes of another block")
    yield from _fault(found.beyond, Severity.WARNING, "unreachable", "aren't 0, behind the disk's end")
    yield from _check_space(file, found)


def _check_header(header: Header, found: TableScan) -> Iterator[Finding]:
    if header.in_use == IN_USE:
        message = "the image is marked as in use: it was not closed, or somebody has it open"
        yield Finding(Severity.WARNING, "in-use", message, IN_USE_OFFSET)
    elif header.in_use not in (0, CLOSED):
        message = f"the in-use mark is {header.in_use:#x}, which means nothing"
        yield Finding(Severity.WARNING, "in-use-unknown", message, IN_USE_OFFSET)
    if header.flags & EMPTY and found.blocks:
        message = "the image is flagged as empty, but has blocks; they are read"
        yield Finding(Severity.WARNING, "not-empty", message, FLAGS_OFFSET)
    data_offset = header.data_offset * SECTOR
    low = data_offset < header.table_end and (data_offset or header.magic == MAGIC_2)
    if low or (header.magic == MAGIC_2 and data_offset % header.block):
        message = f"the data offset {data_offset} lies in the table, or isn't a multiple of the block size"
        yield Finding(Severity.WARNING, "data-offset", message, DATA_OFFSET)


def _fault(entries: Entries, severity: Severity, code: str, what: str) -> Iterator[Finding]:
    if len(entries.blocks):
        first = f"the first is that of block {int(entries.blocks[0])}: offset {int(entries.offsets[0])}"
        message = f"table entries that {what}: {len(entries.blocks)}; {first}"
        yield Finding(severity, code, message, entries.place(0))


def _check_space(file: ExpandingFile, found: TableScan) -> Iterator[Finding]:
    header = file.header
    unused = (found.end - header.first_block) // header.block - found.blocks
    if unused > 0 and not header.extension:  # the extension's blocks are in no entry
        yield Finding(Severity.NOTE, "unused", f"blocks of the file that no entry points to: {unused}")
    if file.files.size > found.end:
        message = f"{file.files.size - found.end} bytes follow the last block"
        yield Finding(Severity.NOTE, "trailing", message, found.end)
