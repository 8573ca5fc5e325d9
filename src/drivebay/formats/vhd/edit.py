"""Changes to a VHD's headers: UUID, geometry, and what a child records about its parent."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import replace

from drivebay.blockmap import FileEdit, Files, FileWrite, HeaderEdit, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhd.footer import FOOTER_SIZE, Footer
from drivebay.formats.vhd.header import HEADER_SIZE, NO_LOCATOR, Header, Locator
from drivebay.formats.vhd.locators import ABSOLUTE, RELATIVE, encoded, encoded_name
from drivebay.formats.vhd.rules import Image, read_image
from drivebay.formats.vhd.sizes import capacity, disk_size
from drivebay.model import NULL_UUID, Geometry

_MISSING = {
    "modification_uuid": "modification UUID",
    "parent_modification_uuid": "parent's modification UUID",
    "parent_format": "parent's format",
    "comment": "comment",
    "lchs": "logical geometry",
}


def edit(files: Files, layer: Layer, wanted: HeaderEdit) -> Iterator[FileEdit]:
    """The writes that make the change, with new checksums; a sparse image's footers stay equal.

    Raises StorageError at once: UNSUPPORTED for what a VHD can't record, INVALID for values that can't
    be, STATE for an image that must be repaired first.
    """
    _require_possible(files, layer, wanted)
    image = read_image(files)
    changes = _parent_changes(files, image, wanted)
    footer = _changed_footer(files, image, wanted)
    if footer != image.footer:
        changes += [FileWrite(offset, footer.pack()) for offset in _footer_places(image)]
    return iter(changes)


def _footer_places(image: Image) -> list[int]:
    """Where the footer lies: the front first, so that one of the two is always whole."""
    used = image.footers.used.offset
    return [used] if image.header is None else sorted({0, used})


def _changed_footer(files: Files, image: Image, wanted: HeaderEdit) -> Footer:
    footer = image.footer
    if wanted.uuid is not None:
        if wanted.uuid == NULL_UUID:
            raise _error(files, ErrorKind.INVALID, "an image can't have the null UUID; give another")
        footer = replace(footer, uuid=wanted.uuid)
    if wanted.pchs is not None:
        footer = _with_geometry(files, footer, wanted.pchs)
    return footer


def _with_geometry(files: Files, footer: Footer, geometry: Geometry) -> Footer:
    wanted = (geometry.cylinders, geometry.heads, geometry.sectors)
    size = disk_size(footer)
    changed = replace(footer, cylinders=wanted[0], heads=wanted[1], sectors=wanted[2])
    possible = all(0 < value <= limit for value, limit in zip(wanted, (65535, 16, 255), strict=True))
    if not possible or capacity(geometry) > size or disk_size(changed) != size:
        raise _error(
            files,
            ErrorKind.INVALID,
            f"a geometry of {wanted} is not possible for this disk; the limits are (65535, 16, 255), and "
            f"{size} bytes in all (exactly that where the geometry is the size, as for Virtual PC)",
        )
    return changed


def _parent_changes(files: Files, image: Image, wanted: HeaderEdit) -> list[FileEdit]:
    header = image.header
    changes: list[FileEdit] = []
    if header is None or (wanted.parent_uuid is None and wanted.parent_path is None):
        return changes
    header = replace(header, parent_modified=0)  # it was another file's
    if wanted.parent_uuid is not None:
        header = replace(header, parent_uuid=wanted.parent_uuid)
    if wanted.parent_path is not None:
        header, changes = _with_path(files, header, wanted.parent_path)
    return [*changes, FileWrite(image.footer.data_offset, header.pack())]


def _with_path(files: Files, header: Header, path: str) -> tuple[Header, list[FileEdit]]:
    """The header with locators for ``path`` in the room of the old ones; what else they said is gone."""
    folder = os.path.dirname(os.path.abspath(files.path))
    absolute = os.path.normpath(os.path.join(folder, path))
    relative = os.path.relpath(absolute, folder)
    paths = {ABSOLUTE: encoded(absolute, ABSOLUTE), RELATIVE: encoded(relative, RELATIVE)}
    changes: list[FileEdit] = []
    locators: list[Locator] = []
    for locator in header.locators:
        data = paths.pop(locator.code, None)
        if data is None or not _has_room(files, header, locator, len(data)):
            locators.append(NO_LOCATOR)
            continue
        locators.append(locator._replace(length=len(data)))
        changes.append(FileWrite(locator.offset, data.ljust(locator.room, b"\0")))
    if not changes:
        message = f"the image has no room for the path {path!r}; make a new child with 'create --parent'"
        raise _error(files, ErrorKind.UNSUPPORTED, message)
    return replace(header, parent_name=encoded_name(path), locators=tuple(locators)), changes


def _has_room(files: Files, header: Header, locator: Locator, length: int) -> bool:
    """Whether ``length`` bytes fit where the locator's old path lies, clear of the table and in the file."""
    begin, end = locator.offset, locator.offset + locator.room
    clear = end <= header.table_offset or begin >= header.table_end
    return length <= locator.room and clear and begin >= FOOTER_SIZE + HEADER_SIZE and end < files.size


def _require_possible(files: Files, layer: Layer, wanted: HeaderEdit) -> None:
    for field, label in _MISSING.items():
        if getattr(wanted, field) not in (None, NULL_UUID):
            raise _error(files, ErrorKind.UNSUPPORTED, f"a VHD has no place for a {label}; leave it out")
    if layer.refusal is not None:
        raise _error(files, ErrorKind.STATE, layer.refusal)
    of_parent = wanted.parent_uuid is not None or wanted.parent_path is not None
    if of_parent and not layer.facts.differencing:
        raise _error(files, ErrorKind.INVALID, "only a differencing image has a parent; leave it out")


def _error(files: Files, kind: ErrorKind, message: str) -> StorageError:
    return StorageError(kind, message, path=files.path, operation="edit")
