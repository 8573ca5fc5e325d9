"""A bundle's next snapshot: new files for an empty state, and the descriptor that has it on top."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from drivebay.blockmap import FileChange, Files, FileWrite, Layer, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.parallels.create import DEFAULT_BLOCK, empty_file, new_header
from drivebay.formats.parallels.descriptor import (
    MAX_SIZE,
    TOP,
    Descriptor,
    guid,
    number,
    parse_descriptor,
    read_descriptor,
)
from drivebay.formats.parallels.header import MAGIC_1, read_header
from drivebay.formats.parallels.xmltree import parse
from drivebay.model import NULL_UUID, SECTOR, UNDECIDED


def snapshot(files: Files, layer: Layer, identifier: UUID) -> Iterator[FileChange]:
    """The changes that keep the newest state and put an empty one on it; the descriptor comes last.

    Where the newest state has the well-known GUID, the empty one takes that over, and what is kept is called
    ``identifier``; else the empty one is, and becomes the TopGUID. So a program that doesn't know TopGUID
    finds the newest state as before; it is also the first Shot, for those that go by that.
    Raises StorageError: UNSUPPORTED for what is no bundle, or not writable.
    """
    if layer.facts.variant != "bundle" or layer.plan is None:
        what = layer.refusal or "it is a single file, and only a bundle has snapshots"
        message = f"this image can't get a snapshot: {what}; create a qcow2 or vdi child instead"
        raise StorageError(ErrorKind.UNSUPPORTED, message, path=files.path, operation="snapshot")
    descriptor, root = read_descriptor(files), parse(files.read(0, MAX_SIZE))
    newest = descriptor.top
    kept, empty = (identifier, TOP) if newest == TOP else (newest, identifier)
    block, version = _layout(files, layer)
    for position, storage in enumerate(root.iterfind("StorageData/Storage")):
        name = f"{identifier.hex[:8]}.{position}.hds"
        size = (number(storage, "End") - number(storage, "Start")) * SECTOR
        yield from empty_file(new_header(size, block, version, UNDECIDED), name)
        _rename(storage, "Image", newest, kept)
        storage.append(_element("Image", GUID=_braced(empty), Type="Compressed", File=name))
    _enter(root, descriptor, kept, empty)
    yield FileWrite(0, _text(files, root))


def _layout(files: Files, layer: Layer) -> tuple[int, int]:
    """Block size and version of the state's expanding files, which all have the same in a writable one."""
    for segment in layer.segments:
        if isinstance(segment, Table):
            header = read_header(files.beside(layer.sources[segment.source - 1]))
            return header.block, 1 if header.magic == MAGIC_1 else 2
    return DEFAULT_BLOCK, 2


def _enter(root: Element, descriptor: Descriptor, kept: UUID, empty: UUID) -> None:
    snapshots = root.find("Snapshots")
    if snapshots is None:
        snapshots = SubElement(root, "Snapshots")
    _rename(snapshots, "Shot", descriptor.top, kept)
    if kept not in (guid(shot, "GUID") for shot in snapshots.iterfind("Shot")):
        snapshots.insert(0, _element("Shot", GUID=_braced(kept), ParentGUID=_braced(NULL_UUID)))
    snapshots.insert(0, _element("Shot", GUID=_braced(empty), ParentGUID=_braced(kept)))
    top = snapshots.find("TopGUID")
    if top is None and empty != TOP:
        top = Element("TopGUID")
        snapshots.insert(0, top)
    if top is not None:
        top.text = _braced(empty)


def _rename(parent: Element, tag: str, old: UUID, new: UUID) -> None:
    for element in parent.iterfind(f"{tag}/GUID"):
        if guid(element, ".") == old:
            element.text = _braced(new)


def _element(tag: str, **texts: str) -> Element:
    element = Element(tag)
    for name, text in texts.items():
        SubElement(element, name).text = text
    return element


def _braced(identifier: UUID) -> str:
    return f"{{{identifier}}}"


def _text(files: Files, root: Element) -> bytes:
    ElementTree.indent(root, " " * 4)
    text: bytes = ElementTree.tostring(root, "UTF-8", xml_declaration=True) + b"\n"
    if len(text) > MAX_SIZE:
        message = f"with one more snapshot the descriptor would be larger than {MAX_SIZE} bytes; merge some"
        raise StorageError(ErrorKind.UNSUPPORTED, message, path=files.path, operation="snapshot")
    parse_descriptor(text, files.path)  # an odd one, read leniently, must not become a broken one
    return text
