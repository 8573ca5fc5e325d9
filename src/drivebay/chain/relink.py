"""Giving a child another parent that shows the same: after a merge."""

from __future__ import annotations

import os

from drivebay.blockmap import HeaderEdit
from drivebay.chain.candidate import identity_uuid
from drivebay.chain.edit import edit_header
from drivebay.chain.merge import ImageName
from drivebay.chain.resolve import open_image
from drivebay.model import NULL_UUID, ImageFacts


def relink(child: ImageName, parent: ImageName, *, lock: bool = True) -> None:
    """Record ``parent`` as the parent of ``child``, durably, in all that the child's format records.

    The caller answers for the content, and without ``lock`` for nobody else's writing the child. Nothing is
    written where all of it is recorded already. Raises StorageError.
    """
    edit = _needed(child, parent)
    with open_image(child.path, child.format, writable=True, lock=lock) as image:
        if edit != HeaderEdit():
            edit_header(image, edit)


def is_linked(child: ImageName, parent: ImageName) -> bool:
    """Whether the child records this parent already. Raises StorageError."""
    return _needed(child, parent) == HeaderEdit()


def _needed(child: ImageName, parent: ImageName) -> HeaderEdit:
    real = os.path.realpath(parent.path)
    with open_image(real, parent.format, lock=False) as image:
        facts, identity = image.layer.facts, identity_uuid(image.layer.facts, image.files.path)
    name = os.path.relpath(real, os.path.dirname(os.path.realpath(child.path)))
    with open_image(child.path, child.format, lock=False) as image:
        return _edit(image.layer.facts, facts, identity, name)


def _edit(child: ImageFacts, parent: ImageFacts, identity: object, name: str) -> HeaderEdit:
    wanted = {
        "parent_uuid": (child.parent_uuid, identity, NULL_UUID),
        "parent_modification_uuid": (child.parent_modification_uuid, parent.modification_uuid, NULL_UUID),
        "parent_content_id": (child.parent_content_id, parent.content_id, None),
        "parent_format": (child.parent_format, parent.format, None),
    }
    fields = {
        field: found
        for field, (recorded, found, nothing) in wanted.items()
        if recorded not in (nothing, found) and found != nothing
    }
    renamed = child.parent_names and name not in child.parent_names
    return HeaderEdit(parent_path=name if renamed else None, **fields)  # type: ignore[arg-type]
