"""What opening a VMDK leaves unread: its grain tables, and whether headers and descriptor agree."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Layer, Mark, Table
from drivebay.formats.vmdk import cowd, header
from drivebay.formats.vmdk.descriptor import Descriptor, is_descriptor
from drivebay.formats.vmdk.facts import VARIANTS
from drivebay.formats.vmdk.header import Header
from drivebay.formats.vmdk.layer import read_descriptor
from drivebay.formats.vmdk.rules import read_header
from drivebay.formats.vmdk.scan import Fault, Leaf, Scan, Tables
from drivebay.formats.vmdk.sparse import Place, open_sparse
from drivebay.model import SECTOR, Finding, Severity


def check(files: Files, layer: Layer) -> Iterator[Finding]:
    """Findings about an image that opened; offsets are in the file that the message names.

    Raises StorageError if it can't be read.
    """
    descriptor = read_descriptor(files)
    yield from _check_descriptor(descriptor, layer)
    for extent, table in sparse_extents(files, layer):
        prefix = f"{extent.path}: " if table.source else ""
        yield from _check_header(extent, table, prefix)
        scan = Tables(extent, table).scan()
        yield from _check_tables(scan, prefix)
        yield from _check_counter(extent, scan, prefix)


def sparse_extents(files: Files, layer: Layer) -> Iterator[tuple[Files, Table]]:
    """The sparse extents, each with its file."""
    for segment in layer.segments:
        if isinstance(segment, Table):
            yield (files.beside(layer.sources[segment.source - 1]) if segment.source else files), segment


def _check_descriptor(descriptor: Descriptor, layer: Layer) -> Iterator[Finding]:
    facts = layer.facts
    if not is_descriptor(descriptor.text):
        message = "the descriptor doesn't begin with '# Disk DescriptorFile': other tools refuse it"
        yield Finding(Severity.WARNING, "signature", message, descriptor.offset)
    if descriptor.get("createType") not in VARIANTS:
        message = f"the createType is {descriptor.get('createType')[:80]!r}: other tools may refuse it"
        yield Finding(Severity.WARNING, "create-type", message, descriptor.offset)
    if facts.content_id is None:
        message = "the descriptor has no content id (CID): a child can't tell whether this image changed"
        yield Finding(Severity.WARNING, "content-id", message, descriptor.offset)
    if facts.parent_content_id is not None and not facts.parent_names and not facts.parent_uuid.int:
        message = "the image has a parent (parentCID), but its descriptor doesn't name it"
        yield Finding(Severity.WARNING, "no-parent", message, descriptor.offset)


def is_unclean(files: Files, mark: Mark) -> bool:
    """Whether an extent says that it is in use."""
    return any(files.read(mark.offset, len(mark.closed)))


def _check_header(files: Files, table: Table, prefix: str) -> Iterator[Finding]:
    mark = open_sparse(files, Place(table.start, table.length, table.source)).mark
    if mark is not None and is_unclean(files, mark):
        message = f"{prefix}the extent says that it is in use: it was not closed, or somebody writes to it"
        yield Finding(Severity.WARNING, "unclean", message, mark.offset)
    if files.read(0, 4) == header.MAGIC:
        yield from _check_hosted(read_header(files), table, prefix)


def _check_hosted(found: Header, table: Table, prefix: str) -> Iterator[Finding]:
    sectors = table.length // SECTOR
    if found.capacity != sectors:
        message = f"{prefix}the header counts {found.capacity} sectors, the descriptor {sectors}, which holds"
        yield Finding(Severity.NOTE, "capacity", message, 12)
    if bool(found.flags & header.COMPRESSED) != bool(found.compression):
        message = f"{prefix}the flags ({found.flags:#x}) contradict the compression ({found.compression})"
        yield Finding(Severity.WARNING, "flags", message, header.FLAGS_OFFSET)
    if lacks_copy(found, table):
        message = f"{prefix}the header promises a redundant grain directory, but there is none in the file"
        yield Finding(Severity.WARNING, "no-redundant-directory", message, 48)


def lacks_copy(found: Header, table: Table) -> bool:
    """Whether the flags promise a redundant directory that can't be used."""
    return bool(found.flags & header.REDUNDANT) and not table.mirrors and table.packed is None


_OF_COPIES = ("copy-lost", "copies-differ")
_LOST = "that aren't in the file, or lie on something else"


def _check_tables(scan: Scan, prefix: str) -> Iterator[Finding]:
    """Copies are only warned about: nothing is read from them, and a power cut leaves them behind."""
    faults = (
        ("outside", "entries that can't be, or point outside the file or to its tables", scan.outside),
        ("doubled", "entries for a grain which another one has", scan.doubled),
        ("table-lost", f"grain tables {_LOST}", _first(scan.lost)),
        ("copy-lost", f"redundant grain tables {_LOST}", _first(scan.lost_copies)),
        (
            "copies-differ",
            "redundant grain tables that differ, so that VirtualBox refuses the image",
            _first([copy for _, copy in scan.differing]),
        ),
    )
    for code, what, fault in faults:
        if fault.count:
            severity = Severity.WARNING if code in _OF_COPIES else Severity.ERROR
            message = f"{prefix}{what}: {fault.count}; see {fault.first} for the first"
            yield Finding(severity, code, message, fault.first)
    if scan.overlapping:
        yield Finding(Severity.ERROR, "overlapping", f"{prefix}grains that overlap: {scan.overlapping}")


def counts_too_few(files: Files, scan: Scan) -> bool:
    """Whether a COWD header calls sectors free that are in use."""
    return files.read(0, 4) == cowd.MAGIC and cowd.read_header(files).free * SECTOR < scan.end


def _check_counter(files: Files, scan: Scan, prefix: str) -> Iterator[Finding]:
    if counts_too_few(files, scan):
        message = f"{prefix}the header calls sectors free that are in use: other tools would overwrite data"
        yield Finding(Severity.WARNING, "counter-low", message, cowd.FREE_OFFSET)


def _first(leaves: list[Leaf]) -> Fault:
    return Fault(len(leaves), leaves[0].entry) if leaves else Fault()
