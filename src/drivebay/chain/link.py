"""What a child records of its parent, brought up to date before the parent is written no more."""

from __future__ import annotations

from typing import TypeVar

from drivebay.blockmap import HeaderEdit
from drivebay.chain.candidate import identity_uuid
from drivebay.chain.edit import edit_header
from drivebay.chain.image import OpenedImage
from drivebay.chain.resolve import open_image
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID

T = TypeVar("T")


def renew_link(child: OpenedImage, parent: str, parent_format: str | None = None) -> None:
    """Let ``child``, opened writable, record the state in which the image at ``parent`` is now.

    The parent may be in use, but all of it must be flushed. Raises StorageError, INVALID for a child that
    was made on another image.
    """
    with open_image(parent, parent_format, lock=False) as image:
        facts, identity = image.layer.facts, identity_uuid(image.layer.facts, image.files.path)
    own = child.layer.facts
    if not own.differencing or (NULL_UUID not in (own.parent_uuid, identity) and own.parent_uuid != identity):
        raise StorageError(
            ErrorKind.INVALID,
            f"it was not made on {parent}, which it is to be put on; create it with that as its parent",
            path=child.files.path,
            operation="put on top",
        )
    edit = HeaderEdit(
        parent_modification_uuid=_news(own.parent_modification_uuid, facts.modification_uuid, NULL_UUID),
        parent_content_id=_news(own.parent_content_id, facts.content_id, None),
    )
    if edit != HeaderEdit():
        edit_header(child, edit)
        child.layer = child.format.open(child.files)


def _news(recorded: T, found: T, nothing: T) -> T | None:
    """What must be recorded, where the format records it at all."""
    return None if nothing in (recorded, found) or recorded == found else found
