"""What opening a VHD leaves unread or unsaid: both footers, checksums, locators, and the table."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Layer
from drivebay.formats.vhd.footer import FOOTER_SIZE, DiskType
from drivebay.formats.vhd.footers import Footers, Found
from drivebay.formats.vhd.header import CHECKSUM_OFFSET, LOCATORS_OFFSET, PARENT_UUID_OFFSET, Header
from drivebay.formats.vhd.locators import is_readable, parent_names
from drivebay.formats.vhd.rules import Image, read_image
from drivebay.formats.vhd.sizes import LARGEST_GEOMETRY, capacity
from drivebay.formats.vhd.table import TableScan, scan_table
from drivebay.model import NULL_UUID, Finding, Severity


def check(files: Files, _layer: Layer) -> Iterator[Finding]:
    """Findings about a VHD whose headers were accepted; raises StorageError if it can't be read."""
    image = read_image(files)
    yield from _check_footers(files, image)
    yield from _check_sizes(image)
    if image.header is not None:
        yield from _check_header(files, image, image.header)
        yield from _check_table(files, image, image.header)


def _check_footers(files: Files, image: Image) -> Iterator[Finding]:
    footers = image.footers
    at_end = footers.at_end
    if at_end is None:
        message = "there is no footer at the file's end, so other tools refuse the image"
        yield Finding(Severity.WARNING, "footer-lost", message, max(files.size - FOOTER_SIZE, 0))
    elif files.size - at_end.offset < FOOTER_SIZE:
        message = "the footer is an old one of 511 bytes, which VirtualBox refuses"
        yield Finding(Severity.WARNING, "footer-old", message, at_end.offset)
    for found in (at_end, footers.in_front):
        yield from _check_sum(found, spare=footers.used.sound)
    if image.header is not None:
        yield from _check_copy(footers)


def _check_sum(found: Found | None, *, spare: bool) -> Iterator[Finding]:
    if found and not found.sound:
        value = found.footer.checksum
        message = f"the checksum of the footer at {found.offset} is {value:#010x}, which is wrong"
        severity = Severity.WARNING if spare else Severity.ERROR
        yield Finding(severity, "footer-checksum", message, found.offset + 64)


def _check_copy(footers: Footers) -> Iterator[Finding]:
    if footers.in_front is None:
        message = "there is no copy of the footer in front, so a crash while the image grows could lose both"
        yield Finding(Severity.WARNING, "copy-lost", message, 0)
    elif not footers.agree and footers.in_front.sound:
        message = "the footer and its copy in front differ; the footer counts"
        yield Finding(Severity.ERROR, "copy-differs", message, 0)


def _check_sizes(image: Image) -> Iterator[Finding]:
    footer = image.footer
    span = capacity(footer.geometry)
    if 0 < span < footer.current_size and footer.geometry != LARGEST_GEOMETRY:
        message = f"tools that go by the geometry see {span} bytes, the others {footer.current_size}"
        yield Finding(Severity.NOTE, "geometry-size", message, image.footers.used.offset + 56)
    if footer.saved_state:
        message = "a saved state of a machine depends on this image: writing to it would spoil that"
        yield Finding(Severity.NOTE, "saved-state", message, image.footers.used.offset + 84)


def _check_header(files: Files, image: Image, header: Header) -> Iterator[Finding]:
    where = image.footer.data_offset
    if not image.header_sound:
        message = f"the checksum of the dynamic header is {header.checksum:#010x}, which is wrong"
        yield Finding(Severity.ERROR, "header-checksum", message, where + CHECKSUM_OFFSET)
    if image.footer.type != DiskType.DIFFERENCING:
        return
    if header.parent_uuid == NULL_UUID and not parent_names(files, header):
        message = "the image is differencing but names no parent: only its own sectors can be read"
        yield Finding(Severity.ERROR, "no-parent", message, where + PARENT_UUID_OFFSET)
    for number, locator in enumerate(header.locators):
        if any(locator.code) and not is_readable(locator, files.size):
            place = f"{locator.length} bytes at {locator.offset}"
            message = f"parent locator {number} names {place}, which aren't in the file"
            yield Finding(Severity.WARNING, "locator", message, where + LOCATORS_OFFSET + 24 * number)


def _check_table(files: Files, image: Image, header: Header) -> Iterator[Finding]:
    scan = scan_table(files, image, header)
    found = (
        (Severity.ERROR, "outside", scan.outside),
        (Severity.ERROR, "inside-headers", scan.inside_headers),
        (Severity.ERROR, "table-length", scan.inside_table),
        (Severity.ERROR, "overlapping", scan.overlapping),
        (Severity.WARNING, "unreachable", scan.unreachable),
    )
    for severity, code, fault in found:
        if fault.count:
            yield Finding(severity, code, fault.message, header.table_offset + 4 * fault.block)
    yield from _check_end(files, image, scan)


def _check_end(files: Files, image: Image, scan: TableScan) -> Iterator[Finding]:
    at_end = image.footers.at_end
    footer = at_end.offset if at_end else files.size
    if scan.used and footer > scan.end:
        message = f"{footer - scan.end} bytes lie between the last block and the footer"
        yield Finding(Severity.NOTE, "trailing", message, scan.end)
    if at_end and scan.end > at_end.offset:
        message = f"the last block reaches to {scan.end}, into the footer at {at_end.offset}"
        yield Finding(Severity.ERROR, "footer-in-block", message, at_end.offset)
