"""Making an image file: whole, durable and under its name, or not at all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from drivebay import formats
from drivebay.blockmap import CreateRequest, Format, ParentLink
from drivebay.chain.apply import Progress
from drivebay.chain.candidate import UNSETTLED, identity_uuid
from drivebay.chain.publish import write_image
from drivebay.chain.resolve import open_image
from drivebay.chain.snapshot import is_same_image, snapshot_image
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID, UNDECIDED, physical_geometry


def create_image(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    parent: str | os.PathLike[str] | None = None,
    format_name: str | None = None,
    parent_format: str | None = None,
    options: Mapping[str, Any] | None = None,
    uuid: UUID | None = None,
    comment: str = "",
    parent_in_use: bool = False,
    child_size: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Make a new image of ``size`` bytes, or a differencing one on ``parent`` and as large as it.

    ``child_size`` is for copies of children that are smaller or larger than their parents: bytes.

    The format follows from the name's extension, VDI where that tells nothing; ``parent_format`` is the
    parent's, where its content shall not decide. ``options`` are fields of the format's options.
    An existing file is never overwritten, and a failure leaves nothing behind. An image that keeps its
    snapshots itself may be its own parent: it gets one more. With ``parent_in_use`` somebody may be writing
    the parent who will put the new image on top (`drivebay.chain.link.renew_link` is for them). Raises
    StorageError.
    """
    name = os.fspath(path)
    if parent is not None and is_same_image(name, os.fspath(parent)):
        _require_nothing_else(name, size, uuid, comment, options)
        snapshot_image(name, format_name or parent_format)
        return
    chosen = format_for(name, format_name)
    if chosen.create is None:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"drivebay can't make {chosen.name} images; choose another format",
            path=name,
            operation="create",
        )
    request = CreateRequest(
        _size(name, size, parent),
        chosen.options(**(options or {})),
        uuid or uuid4(),
        uuid4(),
        comment=comment,
        pchs=physical_geometry(size or 0),
        name=os.path.basename(name),
    )
    if parent is not None:
        request = _on_parent(request, name, os.fspath(parent), parent_format, lock=not parent_in_use)
        if child_size not in (None, request.size):
            request = _resized(request, child_size)
    write_image(name, chosen.create(request), progress)


def _resized(request: CreateRequest, size: int) -> CreateRequest:
    return dataclasses.replace(request, size=size, pchs=physical_geometry(size), lchs=UNDECIDED)


def format_for(path: str, format_name: str | None) -> Format:
    """The format that a new image at ``path`` gets. Raises StorageError where name and wish differ."""
    extension = os.path.splitext(path)[1].removeprefix(".").lower()
    by_name = next((candidate for candidate in formats.FORMATS if extension in candidate.extensions), None)
    if format_name is None:
        return by_name or formats.FORMATS[0]
    chosen = formats.format_named(format_name)
    if by_name not in (None, chosen):
        raise StorageError(
            ErrorKind.INVALID,
            f"the name says {by_name.name}, but a {chosen.name} image is asked for; "
            f"let the name end in .{chosen.extensions[0]}",
            path=path,
            operation="create",
        )
    return chosen


def _require_nothing_else(path: str, *asked: object) -> None:
    if any(asked):
        raise StorageError(
            ErrorKind.INVALID,
            "a snapshot within an image takes everything from that; give only the image as the parent",
            path=path,
            operation="create",
        )


def _size(path: str, size: int | None, parent: object) -> int:
    if (size is None) == (parent is None):
        raise StorageError(
            ErrorKind.INVALID,
            "a new image needs either a size or a parent (whose size it takes); give one of the two",
            path=path,
            operation="create",
        )
    return size or 0


def _on_parent(
    request: CreateRequest, path: str, parent: str, parent_format: str | None, *, lock: bool
) -> CreateRequest:
    """The request with what it takes from its parent; with ``lock`` it is refused while somebody writes
    that: the child would be stale at once."""
    real = os.path.realpath(parent)
    with open_image(real, parent_format, lock=lock) as image:
        facts = image.layer.facts
        uuid = identity_uuid(facts, image.files.path)
        modified = int(os.fstat(image.files.fd).st_mtime) if lock else None
    known = lock or facts.modification_uuid == NULL_UUID
    link = ParentLink(
        uuid,
        facts.modification_uuid if known else UNSETTLED,
        os.path.relpath(real, os.path.realpath(os.path.dirname(path))),
        absolute=real,
        format=facts.format,
        content_id=facts.content_id,
        sector_size=facts.sector_size,
        modified=modified,
    )
    return dataclasses.replace(request, size=facts.size, parent=link, pchs=facts.pchs, lchs=facts.lchs)
