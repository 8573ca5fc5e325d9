"""A medium's write mode set on the way, when it is attached (virtual-storage specification, 4.4)."""

from __future__ import annotations

import dataclasses

from drivebay.machines.store import machine_names
from drivebay.registry.database import View
from drivebay.registry.medium import MediaTree, Medium, MediumType
from drivebay.registry.rules import require_type
from drivebay.service.media_state import require_free


def with_type(view: View, medium: Medium | None, wanted: MediumType | None) -> MediaTree:
    """The tree with the medium's write mode as wanted. Raises StorageError (E31 to E33)."""
    if medium is None or wanted is None:
        return view.tree
    current = view.tree.get(medium.uuid)
    require_type(view.tree, current, wanted, machine_names(view))
    if wanted is not current.type:
        require_free(current, "set the type of")
    changed = {**view.tree.media, medium.uuid: dataclasses.replace(current, type=wanted)}
    return dataclasses.replace(view.tree, media=changed)
