"""Headers that agree with the registry again, after a merge of served images ended with its process.

At the end of a merge the children of the image that goes get another parent, first in their headers and then
in the registry. A worker that is started in between opens what the registry says: the links are put back.
The image between is empty by then, so that both chains show the same. It happens in a change of the registry:
a merge that is about to be recorded is recorded first, so that nobody opens an image that is about to go.
"""

from __future__ import annotations

import contextlib

from drivebay.chain.merge import ImageName, kept_for_merging
from drivebay.chain.relink import is_linked, relink
from drivebay.errors import StorageError
from drivebay.machines.model import Machine
from drivebay.registry.database import Change
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service.merge_records import merges_begun


def restore_links(change: Change, machine: Machine) -> None:
    """Let the images of merges that were begun name the parents that the registry has for them.

    Those of one machine, whose worker is to be started. What others have in use is left as it is. Raises
    StorageError, IN_USE for images that are being merged right now.
    """
    tree = change.tree
    media = [at.medium for at in machine.hardware.attachments if at.medium is not None]
    own = {one.uuid for medium in media for one in tree.chain(medium)}
    for parent, child in merges_begun(change):
        if child.uuid in own:
            with kept_for_merging([_name(parent), _name(child)]):
                for image in (child, *tree.children(child.uuid)):
                    _restore(tree, image, child)


def _restore(tree: MediaTree, image: Medium, child: Medium) -> None:
    assert image.parent is not None
    names = _name(image), _name(tree.get(image.parent))
    if not is_linked(*names):
        ours = image.uuid == child.uuid
        with contextlib.nullcontext() if ours else contextlib.suppress(StorageError):
            relink(*names, lock=not ours)


def _name(medium: Medium) -> ImageName:
    return ImageName(medium.path, medium.format)
