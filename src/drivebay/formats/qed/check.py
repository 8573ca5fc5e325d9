"""What opening a QED image leaves unread: the tables, held against the file and each other."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Layer
from drivebay.formats.qed.header import AUTOCLEAR_OFFSET, FEATURES_OFFSET, NEED_CHECK, Header, read_header
from drivebay.formats.qed.tables import References, Scan, scan
from drivebay.model import Finding, Severity


def check(files: Files, _layer: Layer) -> Iterator[Finding]:
    """Findings about a QED image whose header was accepted; raises StorageError if it can't be read."""
    header = read_header(files)
    yield from _check_header(header)
    found = scan(files, header)
    yield from _faults(found)
    yield from _check_space(header, found, files.size)


def _check_header(header: Header) -> Iterator[Finding]:
    if header.features & NEED_CHECK:
        message = "the image was not closed, and asks to be checked before it is written"
        yield Finding(Severity.WARNING, "needs-check", message, offset=FEATURES_OFFSET)
    if header.autoclear_features:
        message = (
            f"the autoclear features {header.autoclear_features:#x} are unknown; the first write clears them"
        )
        yield Finding(Severity.NOTE, "autoclear", message, offset=AUTOCLEAR_OFFSET)


def _faults(found: Scan) -> Iterator[Finding]:
    outside = "point into a cluster, into the header, or out of the file"
    shared = "point to a cluster which something else uses"
    yield from _fault(found.bad_tables, "outside-table", f"L1 entries that {outside}")
    yield from _fault(found.bad_data, "outside", f"L2 entries that {outside}")
    yield from _fault(found.shared_tables, "doubled-table", f"L1 entries that {shared}")
    yield from _fault(found.shared_data, "doubled", f"L2 entries that {shared}")


def _fault(entries: References, code: str, what: str) -> Iterator[Finding]:
    if len(entries.values):
        message = f"{what}: {len(entries.values)}; the first is {int(entries.values[0])}"
        yield Finding(Severity.ERROR, code, message, offset=int(entries.places[0]))


def _check_space(header: Header, found: Scan, file_size: int) -> Iterator[Finding]:
    clusters, rest = divmod(file_size, header.cluster_size)
    unused = clusters - header.header_size - found.used
    if unused > 0:
        yield Finding(Severity.NOTE, "unused", f"clusters of the file that nothing points to: {unused}")
    if rest:
        message = f"{rest} bytes follow the last whole cluster"
        yield Finding(Severity.NOTE, "trailing", message, offset=file_size - rest)
