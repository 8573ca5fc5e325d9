"""What a child records of its parent, brought up to date before the parent is written no more."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from drivebay.blockmap import HeaderEdit
from drivebay.chain.candidate import UNSETTLED, UNSETTLED_CONTENT, identity_uuid
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
    _record(child, facts.modification_uuid, facts.content_id)


def unsettle_link(child: OpenedImage) -> None:
    """Let ``child``, opened writable, take any state of its parent for the right one, until `renew_link`.

    So nothing is stale if the power is cut between a change of the parent and what the child records of it.
    Raises StorageError.
    """
    _record(child, UNSETTLED, UNSETTLED_CONTENT)


def _record(child: OpenedImage, modification: UUID, content: int | None) -> None:
    own = child.layer.facts
    edit = HeaderEdit(
        parent_modification_uuid=_news(own.parent_modification_uuid, modification, NULL_UUID),
        parent_content_id=_news(own.parent_content_id, content, None),
    )
    if edit != HeaderEdit():
        edit_header(child, edit)
        child.layer = child.format.open(child.files)


def _news(recorded: T, found: T, nothing: T) -> T | None:
    """What must be recorded, where the format records it at all."""
    return None if nothing in (recorded, found) or recorded == found else found
