"""Giving back the space of images that no state of a machine uses any more: each is merged with a neighbour.

Which images these are, the registry says (`Medium.merging`). One with several children stays for them until
one is left; nothing of what machines see changes. A merge is noted in the registry before it begins and is
over with the change that takes the emptied image out, so that it is resumed after whatever ended it. Until
then its two images take part in no other merge: a child may name what is below the emptied one already, which
would fill it again from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from drivebay.chain.apply import Progress
from drivebay.chain.merge import Direction, Manner, kept_empty, merge
from drivebay.chain.relink import is_linked, relink
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.document import media_of
from drivebay.machines.merge_direction import merges_backward
from drivebay.machines.store import load
from drivebay.machines.write_modes import may_be_reset
from drivebay.registry.database import Registry, View, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.registry.medium import ALWAYS_DIFFED, MediaTree, Medium
from drivebay.service.diffs import disk_usage, image_files
from drivebay.service.merge_records import begin_merge, merges_begun, record_merge
from drivebay.service.online_merging import Pair, Rounds, merge_served, name_of
from drivebay.service.served import running_with


@dataclass(frozen=True, slots=True)
class Merged:
    """An image that is gone, and the one that holds all of it now; ``None`` if nobody needed it."""

    gone: Medium
    kept: Medium | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """An image that stays for now, and why."""

    medium: Medium
    reason: str


@dataclass(frozen=True, slots=True)
class Consolidated:
    """What `consolidate` did, and what it left."""

    merged: tuple[Merged, ...]
    left: tuple[Left, ...]
    longest_hold: float = 0.0  # seconds for which a running guest's disks stood still at most


def consolidate(
    home: Home, progress: Progress | None = None, machine: str | UUID | None = None
) -> Consolidated:
    """Merge or remove all images that wait for it, or those of one machine.

    Images that running machines serve are merged while those go on (`drivebay.service.online_merging`);
    what somebody else uses is left for later. ``progress`` is told the bytes done and those in
    all of each merge; it may be interrupted at any time. Raises StorageError where a merge fails: NO_SPACE,
    IO, STATE; all machines still see what they saw, and the next call goes on.
    """
    merged: list[Merged] = []
    left: dict[UUID, Left] = {}
    rounds = Rounds()
    with open_registry(home) as registry:
        while (medium := _next(registry, machine, left)) is not None:
            try:
                done = _tidy(registry, medium, rounds, progress)
                merged += [] if done is None else [done]
            except StorageError as error:
                if error.kind is not ErrorKind.IN_USE and error.operation != "worker":
                    raise
                left[medium.uuid] = Left(medium, str(error))
    return Consolidated(tuple(merged), tuple(left.values()), rounds.longest)


def _next(registry: Registry, machine: str | UUID | None, left: dict[UUID, Left]) -> Medium | None:
    with registry.view() as view:
        wanted, tree = _wanted(view, machine), view.tree
        begun = {(parent.uuid, child.uuid) for parent, child in merges_begun(view)}
    ready = [
        medium
        for medium in wanted
        if medium.merging
        and medium.uuid not in left
        and _is_ready(tree, medium)
        and not _waits(tree, medium, begun)
    ]
    return min(ready, key=lambda medium: _is_below_active(tree, medium), default=None)


def _waits(tree: MediaTree, medium: Medium, begun: set[tuple[UUID, UUID]]) -> bool:
    """Whether another merge, which was begun, is to end first."""
    return any(
        (medium.uuid, child.uuid) not in begun and any({medium.uuid, child.uuid} & {*pair} for pair in begun)
        for child in tree.children(medium.uuid)
    )


def _is_below_active(tree: MediaTree, medium: Medium) -> bool:
    """Whether its child is one that a machine may be writing: those come last."""
    return any(not tree.children(child.uuid) for child in tree.children(medium.uuid))


def _wanted(view: View, machine: str | UUID | None) -> list[Medium]:
    if machine is None:
        return list(view.tree.media.values())
    return media_of(load(view, machine), view.tree)


def _is_ready(tree: MediaTree, medium: Medium) -> bool:
    """Whether nothing but one child needs it.

    What a reset is to forget, and an immutable base, which must not change, stay.
    """
    children = tree.children(medium.uuid)
    if tree.uses_of(medium.uuid) or len(children) > 1:
        return False
    return not children or not (may_be_reset(tree, children[0]) or medium.type in ALWAYS_DIFFED)


def _tidy(registry: Registry, medium: Medium, rounds: Rounds, progress: Progress | None) -> Merged | None:
    with registry.view() as view:
        tree = view.tree
        serving = running_with(view, registry.home, medium.uuid)
    children = tree.children(medium.uuid)
    if not children:
        return _remove(registry, medium)
    if serving:
        pair = Pair(tree, medium, children[0])
        done = merge_served(registry, pair, _direction(medium, children[0]), rounds, progress)
        return None if done is None else Merged(*done)
    return _merge(registry, tree, medium, children[0], progress)


def _remove(registry: Registry, medium: Medium) -> Merged | None:
    """A diff that nobody needs goes; a base is the user's, and stays (specification, 5.6)."""
    with registry.change() as change:
        if change.tree.children(medium.uuid) or change.tree.uses_of(medium.uuid):
            raise _changed(medium)
        if medium.parent is None:
            change.put_medium(replace(medium, merging=False))
            return None
        change.remove_medium(medium.uuid)
        change.after_commit(Remove(image_files(medium)))
    return Merged(medium)


def _merge(
    registry: Registry, tree: MediaTree, parent: Medium, child: Medium, progress: Progress | None
) -> Merged:
    begun = begin_merge(registry, parent, child, _direction(parent, child))
    chain = [name_of(medium) for medium in tree.chain(child.uuid)]
    backward = begun.direction is Direction.BACKWARD
    if backward or not (begun.resumed and is_linked(chain[0], chain[2])):
        manner = Manner() if progress is None else Manner(progress)
        merge(chain, begun.direction, resumed=begun.resumed, manner=manner)
    gone, kept = (child, parent) if backward else (parent, child)
    with kept_empty(name_of(gone)):
        files = image_files(gone)
        if backward:
            for above in tree.children(child.uuid):
                relink(name_of(above), chain[1])
        else:
            relink(chain[0], chain[2])
        with registry.change() as change:
            if change.tree.media.get(child.uuid) != child or change.tree.media.get(parent.uuid) != parent:
                raise _changed(parent)
            if change.tree.children(gone.uuid) != tree.children(gone.uuid):
                raise _changed(gone)
            kept = record_merge(change, begun, kept=kept, gone=gone)
            change.after_commit(Remove(files))
    return Merged(gone, kept)


def _direction(parent: Medium, child: Medium) -> Direction:
    """Less is moved; but a base can only take (specification, 5.6)."""
    backward = merges_backward(is_base=parent.parent is None, size=_usage(parent), child_size=_usage(child))
    return Direction.BACKWARD if backward else Direction.FORWARD


def _usage(medium: Medium) -> int:
    return disk_usage(image_files(medium))


def _changed(medium: Medium) -> StorageError:
    return StorageError(
        ErrorKind.IN_USE,
        "somebody changed its place in the tree of media meanwhile; it is tidied up the next time",
        path=medium.path,
        operation="merge",
    )
