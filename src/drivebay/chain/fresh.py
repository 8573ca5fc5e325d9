"""Whether a parent is still what its child was made on."""

from __future__ import annotations

from uuid import UUID

from drivebay.chain.candidate import UNSETTLED, UNSETTLED_CONTENT, Wanted
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID, ImageFacts


def check_fresh(child: Wanted, path: str, parent: ImageFacts) -> None:
    """Hold what ``child`` recorded against its parent at ``path``; what one of them lacks isn't compared.

    Raises StorageError (STATE) for a parent that changed behind its child.
    """
    recorded, found = child.facts.parent_modification_uuid, parent.modification_uuid
    if NULL_UUID not in (recorded, found) and recorded not in (UNSETTLED, found):
        raise _stale(child, path, _braced(recorded), _braced(found))
    content, now = child.facts.parent_content_id, parent.content_id
    if content is not None and now is not None and content not in (UNSETTLED_CONTENT, now):
        raise _stale(child, path, f"{content:#010x}", f"{now:#010x}")


def _braced(uuid: UUID) -> str:
    return f"{{{uuid}}}"


def _stale(child: Wanted, path: str, recorded: str, found: str) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"its parent {path} has changed behind it: the child was made on modification {recorded}, "
        f"the parent now is at {found}. What the child shows may be garbage. "
        "VirtualBox itself leaves this after it merged a snapshot; if you know that the two fit, "
        "open them with --allow-stale-parent",
        path=child.path,
        operation="open the chain",
    )
