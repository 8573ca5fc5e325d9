"""Another parent in the header of a QCOW2 image: what the blocks hold stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from drivebay.blockmap import FileEdit, Files, FileWrite, HeaderEdit, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.backing import qemu_format, recorded_name
from drivebay.formats.edits import require_only
from drivebay.formats.qcow2.area import pack_area
from drivebay.formats.qcow2.extensions import BACKING_FORMAT, Extension
from drivebay.formats.qcow2.header import Autoclear
from drivebay.formats.qcow2.image import Image, read_image
from drivebay.formats.qcow2.options import check_name

_POSSIBLE = ("parent_path", "parent_format")


def edit(files: Files, _layer: Layer, wanted: HeaderEdit) -> Iterator[FileEdit]:
    """The change of the first cluster; an empty ``parent_path`` takes the parent away.

    Raises StorageError: UNSUPPORTED for fields that QCOW2 doesn't have, INVALID for a parent that can't be.
    """
    require_only(files, wanted, _POSSIBLE, "a QCOW2 image", "only its parent's path and format can be set")
    image = read_image(files)
    name = _name(files, image, wanted)
    if name and image.header.autoclear & Autoclear.RAW_DATA_FILE:
        message = "its data file is a raw disk by itself, so it can't have a parent; leave it alone"
        raise StorageError(ErrorKind.INVALID, message, path=files.path, operation="edit")
    known = image.header.autoclear & sum(Autoclear)
    area = pack_area(replace(image.header, autoclear=known), _extensions(image, wanted, name), name)
    end = image.header.backing_offset + image.header.backing_length if image.backing else 0
    return iter((FileWrite(0, area.ljust(end, b"\0")),))


def _name(files: Files, image: Image, wanted: HeaderEdit) -> bytes:
    if wanted.parent_path is None:
        return files.read(image.header.backing_offset, image.header.backing_length) if image.backing else b""
    return check_name(recorded_name(wanted.parent_path)) if wanted.parent_path else b""


def _extensions(image: Image, wanted: HeaderEdit, name: bytes) -> Iterator[Extension]:
    recorded = next((one for one in image.extensions if one.type == BACKING_FORMAT), None)
    if name and wanted.parent_format is not None:
        yield Extension(BACKING_FORMAT, qemu_format(wanted.parent_format).encode(), 0)
    elif name and recorded:
        yield recorded
    yield from (one for one in image.extensions if one.type != BACKING_FORMAT)
