"""Changing a Parallels header: the geometry, which is all that it holds of what can be edited."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from drivebay.blockmap import FileEdit, Files, FileWrite, HeaderEdit, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.edits import require_only
from drivebay.formats.parallels.header import read_header


def edit(files: Files, layer: Layer, change: HeaderEdit) -> Iterator[FileEdit]:
    """The changes that make the edit.

    Raises StorageError: UNSUPPORTED for fields that Parallels doesn't have, and for bundles; INVALID for a
    geometry that the header can't say.
    """
    if layer.sources:
        require_only(files, change, (), "the descriptor of a Parallels bundle")
    require_only(files, change, ("pchs",), "a Parallels image")
    if change.pchs is None:
        return
    wanted = change.pchs
    header = dataclasses.replace(read_header(files), heads=wanted.heads, cylinders=wanted.cylinders)
    if header.geometry != wanted:
        message = (
            f"the header can't say the geometry {wanted.cylinders}/{wanted.heads}/{wanted.sectors}: "
            "the sectors of a track follow from the disk's size or its blocks; give another one"
        )
        raise StorageError(ErrorKind.INVALID, message, path=files.path, operation="edit")
    yield FileWrite(0, header.pack())
