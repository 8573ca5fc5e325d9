"""Telling a child where its parent is now: the names, and what stands for a parent without a UUID."""

from __future__ import annotations

import os

from drivebay.blockmap import HeaderEdit
from drivebay.chain.candidate import identity_uuid
from drivebay.chain.edit import edit_header
from drivebay.chain.resolve import open_image
from drivebay.model import NULL_UUID, ImageFacts


def record_parent(child: str, parent: str) -> None:
    """Write the path of ``parent`` into the header of ``child``, as far as that records one.

    Nothing else changes: whether the two fit is still told by their modification UUIDs. Raises StorageError.
    """
    with open_image(parent, lock=False) as image:
        facts, own_path = image.layer.facts, image.files.path
    with open_image(child, lock=False) as image:
        wanted = _edit(image.layer.facts, child, facts, own_path)
    if wanted != HeaderEdit():
        with open_image(child, writable=True) as image:
            edit_header(image, wanted)


def _edit(child: ImageFacts, path: str, parent: ImageFacts, parent_path: str) -> HeaderEdit:
    uuid = identity_uuid(parent, parent_path)
    name = os.path.relpath(os.path.realpath(parent_path), os.path.dirname(os.path.realpath(path)))
    renamed = child.parent_names and name not in child.parent_names
    return HeaderEdit(
        parent_uuid=uuid if child.parent_uuid not in (NULL_UUID, uuid) else None,
        parent_path=name if renamed else None,
    )
