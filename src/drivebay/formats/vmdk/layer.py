"""From a descriptor and its extents to a layer: what is read at open, and how the image is written."""

from __future__ import annotations

import re

from drivebay.blockmap import Allocator, Files, Layer, Mark, MarkKind, Match, WritePlan
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import cowd, sesparse
from drivebay.formats.vmdk.descriptor import MAX_SIZE, Descriptor, is_descriptor, parse
from drivebay.formats.vmdk.extents import Extents, open_extents
from drivebay.formats.vmdk.facts import NO_CONTENT, identifier, image_facts
from drivebay.formats.vmdk.header import (
    GD_AT_END,
    HEADER_SIZE,
    MAGIC,
    POINTER_OFFSET,
    Header,
    pointer_to,
    unpack,
)
from drivebay.formats.vmdk.rules import read_header, refusal
from drivebay.formats.vmdk.sparse import SparseExtent
from drivebay.model import NULL_UUID, SECTOR

_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,8}")


def probe(head: bytes, _tail: bytes = b"") -> Match:
    """YES by a sparse extent's magic, or by the first line of a descriptor."""
    magic = head[:4] in (MAGIC, cowd.MAGIC) or head[:8] == sesparse.MAGIC
    return Match.YES if magic or is_descriptor(head) else Match.NO


def open_layer(files: Files) -> Layer:
    """Describe the image; reads the descriptor and the headers of its extents, but no table.

    Raises StorageError.
    """
    descriptor = read_descriptor(files)
    extents = open_extents(files, descriptor)
    reason = _refusal(descriptor, extents.sparse)
    return Layer(
        image_facts(descriptor, extents),
        tuple(extents.segments),
        None if reason else _plan(descriptor, extents),
        reason,
        tuple(extents.sources),
    )


def read_descriptor(files: Files) -> Descriptor:
    """The image's descriptor, from within its sparse extent or as a file of its own. Raises StorageError."""
    head = files.read(0, SECTOR)
    if head[:4] == MAGIC:
        return _embedded(files)
    if head[:4] == cowd.MAGIC or head[:8] == sesparse.MAGIC:
        raise _extent_alone(files)
    if not is_descriptor(head):
        what = "the file begins neither with a VMDK header nor with the line '# Disk DescriptorFile'"
        raise refusal(files, ErrorKind.CORRUPT, 0, what)
    if files.size > MAX_SIZE:
        raise refusal(files, ErrorKind.CORRUPT, MAX_SIZE, f"a descriptor has at most {MAX_SIZE} bytes")
    return parse(files.read(0, files.size), files.path)


def _embedded(files: Files) -> Descriptor:
    header = read_header(files)
    offset, room = header.descriptor_offset * SECTOR, header.descriptor_size * SECTOR
    if not offset:
        raise _extent_alone(files)
    if not 0 < room <= MAX_SIZE or offset + room > files.size:
        what = f"VMDK header: a descriptor of {room} bytes at {offset} can't be"
        raise refusal(files, ErrorKind.CORRUPT, 28, what)
    text = files.read(offset, room)
    return parse(text, files.path, offset=offset, room=room, pointers=_pointers(files, header))


def _pointers(files: Files, header: Header) -> tuple[int, ...]:
    """Where the header, and the footer if there is one, tell the descriptor's place as ``header`` does."""
    told = pointer_to(header.descriptor_offset, header.descriptor_size)
    places = [0]
    if unpack(files.read(0, HEADER_SIZE)).directory == GD_AT_END:
        places.append(files.size - 2 * SECTOR)
    pointers = (place + POINTER_OFFSET for place in places)
    return tuple(pointer for pointer in pointers if files.read(pointer, len(told)) == told)


def _extent_alone(files: Files) -> StorageError:
    return StorageError(
        ErrorKind.INVALID,
        "this is only an extent of a VMDK image; open the image's descriptor, a small text file beside it",
        path=files.path,
        offset=0,
        operation="open",
    )


def _plan(descriptor: Descriptor, extents: Extents) -> WritePlan:
    marks = _text_marks(descriptor)
    if not extents.sparse:
        return WritePlan(Allocator.NONE, marks=marks)
    one = extents.sparse[0]
    zeroed = all(extent.zero is not None for extent in extents.sparse)
    return WritePlan(
        Allocator.BUMP_EOF,
        unit=one.table.block,
        first=min(extent.first for extent in extents.sparse),
        zero=one.zero if zeroed else None,
        counter=one.counter,
        marks=(*marks, *(extent.mark for extent in extents.sparse if extent.mark)),
        align=one.align,
        leaf=one.leaf,
    )


def _text_marks(descriptor: Descriptor) -> tuple[Mark, ...]:
    """The content id (QEMU leaves out its leading zeros), and eight digits of the modification UUID."""
    found = [descriptor.settings.get("cid")]
    if identifier(descriptor, "modification") != NULL_UUID:
        found.append(descriptor.settings.get("ddb.uuid.modification"))
    digits = ((place, _HEXADECIMAL.match(place.value)) for place in found if place)
    return tuple(
        Mark(descriptor.offset + place.offset, MarkKind.RANDOM_HEX, digits=match.end())
        for place, match in digits
        if match
    )


def _refusal(descriptor: Descriptor, sparse: list[SparseExtent]) -> str | None:
    """Why the image can't be written, if so."""
    reason = next((extent.refusal for extent in sparse if extent.refusal), None)
    if reason is not None:
        return reason
    if any(extent.access != "RW" for extent in descriptor.extents):
        return "an extent of the image is marked as read-only; change RDONLY in its descriptor to RW"
    if len({(extent.kind, extent.table.block, extent.leaf) for extent in sparse}) > 1:
        return "its extents have grains of different sizes; convert the image to write to it"
    if not _HEXADECIMAL.fullmatch(descriptor.get("CID", f"{NO_CONTENT:x}")):
        return "its content id (CID) isn't 1 to 8 hexadecimal digits; correct it in the descriptor"
    return None
