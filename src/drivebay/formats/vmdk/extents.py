"""From the extent lines of a descriptor to the segments of a layer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise

from drivebay.blockmap import Files, Linear, Segment, Zeros
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk.descriptor import Descriptor, Extent
from drivebay.formats.vmdk.sparse import Place, SparseExtent, open_sparse
from drivebay.model import SECTOR

FLAT = {"FLAT", "VMFS", "VMFSRAW", "VMFSRDM"}
SPARSE = {"SPARSE", "VMFSSPARSE", "SESPARSE"}
_MOST_SECTORS = 1 << 54


@dataclass
class Extents:
    """What the extents amount to: ``sources`` as in `Layer`, ``size`` in bytes.

    ``flat`` tells by path how a file is used.
    """

    segments: list[Segment] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    sparse: list[SparseExtent] = field(default_factory=list)
    files: dict[int, Files] = field(default_factory=dict)
    flat: dict[str, bool] = field(default_factory=dict)
    size: int = 0


def open_extents(files: Files, descriptor: Descriptor) -> Extents:
    """Open all extents through the gate, in order; each file once. Raises StorageError."""
    found = Extents(files={0: files})
    for number, extent in enumerate(descriptor.extents):
        if not 0 < extent.sectors < _MOST_SECTORS:
            raise fault(files, descriptor, number, f"counts {extent.sectors} sectors, which can't be")
        _add(found, files, descriptor, number)
        found.size += extent.sectors * SECTOR
    _refuse_overlaps(found, files, descriptor)
    return found


def _refuse_overlaps(found: Extents, files: Files, descriptor: Descriptor) -> None:
    """No sector of a flat file may be two sectors of the disk: writing the one would change the other."""
    placed = sorted(
        (found.files[part.source].path, part.offset, part.offset + part.length, number)
        for number, part in enumerate(found.segments)
        if isinstance(part, Linear)
    )
    for (path, _, end, first), (other, begin, _, second) in pairwise(placed):
        if path == other and begin < end:
            what = f"uses a part of its file that extent {min(first, second) + 1} uses, too"
            raise fault(files, descriptor, max(first, second), what)


def _add(found: Extents, files: Files, descriptor: Descriptor, number: int) -> None:
    extent = descriptor.extents[number]
    length = extent.sectors * SECTOR
    if extent.type == "ZERO" or (extent.access == "NOACCESS" and not extent.name):
        found.segments.append(Zeros(found.size, length))
        return
    if extent.type not in FLAT | SPARSE or extent.access == "NOACCESS":
        what = f"is {extent.access} {extent.type[:40]}, which drivebay can't read"
        raise fault(files, descriptor, number, what, ErrorKind.UNSUPPORTED)
    source = _source(found, files, descriptor, extent)
    flat = extent.type in FLAT
    if found.flat.setdefault(found.files[source].path, flat) != flat:  # a guest could write the tables
        what = "names a file that is sparse for one extent and flat for another"
        raise fault(files, descriptor, number, what)
    if flat:
        _add_flat(found, files, descriptor, number, source)
        return
    path = found.files[source].path
    if any(found.files[other.table.source].path == path for other in found.sparse):
        raise fault(files, descriptor, number, "names a sparse file that another one names, too")
    opened = open_sparse(found.files[source], Place(found.size, length, source))
    found.sparse.append(opened)
    found.segments.append(opened.table)


def _add_flat(found: Extents, files: Files, descriptor: Descriptor, number: int, source: int) -> None:
    extent = descriptor.extents[number]
    length, offset = extent.sectors * SECTOR, extent.offset * SECTOR
    if found.files[source].path == files.path:  # a guest could write its own descriptor
        raise fault(files, descriptor, number, "names the file that the descriptor lies in")
    end, size = offset + length, found.files[source].size
    if end > size:
        raise fault(files, descriptor, number, f"reaches to byte {end} of a file of {size} bytes")
    found.segments.append(Linear(found.size, length, source, offset))


def _source(found: Extents, files: Files, descriptor: Descriptor, extent: Extent) -> int:
    """The number of the extent's source; an embedded descriptor's only extent is the file itself.

    That one is known by its place, not by its name: the file may have been renamed.
    """
    alone = len(descriptor.extents) == 1
    if descriptor.embedded and (alone or extent.name == os.path.basename(files.path)):
        return 0
    if extent.name in found.sources:
        return found.sources.index(extent.name) + 1
    found.files[len(found.sources) + 1] = files.beside(extent.name)
    found.sources.append(extent.name)
    return len(found.sources)


def fault(
    files: Files, descriptor: Descriptor, number: int, what: str, kind: ErrorKind = ErrorKind.CORRUPT
) -> StorageError:
    """The error for extent line ``number`` (from 0)."""
    message = (
        f"VMDK descriptor: extent {number + 1} {what}; restore the image, and all of its files, from a copy"
    )
    return StorageError(kind, message, path=files.path, offset=descriptor.offset, operation="open")
