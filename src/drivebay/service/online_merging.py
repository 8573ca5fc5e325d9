"""Merging two neighbours of a chain while running machines' workers serve them.

What the workers see changes only while they hold their disks: for a batch of blocks at a time, after which
they open the images anew. Images that are written go on being so: a new image is put on top of the active
one, which can then be merged, and so on until what the newest holds is little enough to be merged within one
hold. A machine that writes faster than that keeps its newest image, until it is off.

However it ends, the registry's chains show what the guests have written. The order that ensures it is in
docs/internals/merging.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from uuid import UUID

from drivebay.chain.apply import Progress
from drivebay.chain.merge import Direction, ImageName, Manner, holds_any, kept_for_merging, merge
from drivebay.chain.relink import is_linked, relink
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.diffs import new_diff
from drivebay.machines.model import Machine
from drivebay.machines.store import load, save
from drivebay.registry.database import Change, Registry
from drivebay.registry.journal import Remove
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service.diffs import disk_usage, image_files, made_diffs, record_diffs
from drivebay.service.merge_records import Begun, begin_merge, record_merge
from drivebay.service.served import Disk, Served

BATCH = 4 << 20  # bytes that are merged within one hold
LITTLE = 8 << 20  # bytes that the newest image may hold to be merged at once
_MORE = 64 << 20  # the same, after some attempts
_PATIENT_ROUNDS = 4
_ROUNDS = 10


@dataclass
class Rounds:
    """How far the merging of running machines has come; ``longest`` is the longest hold, in seconds."""

    pushed: Counter[UUID] = field(default_factory=Counter)  # new images, by the base of their chain
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two neighbours that are to become one, and all that is below them."""

    tree: MediaTree
    parent: Medium
    child: Medium

    @property
    def chain(self) -> list[Medium]:
        """The child, its parent, and so on."""
        return list(self.tree.chain(self.child.uuid))

    @property
    def active(self) -> bool:
        """Whether the child is one that a machine writes."""
        return not self.tree.children(self.child.uuid)


def name_of(medium: Medium) -> ImageName:
    """A medium's image."""
    return ImageName(medium.path, medium.format)


def merge_served(
    registry: Registry, pair: Pair, direction: Direction, rounds: Rounds, progress: Progress | None
) -> tuple[Medium, Medium] | None:
    """Merge two images that running machines serve: the one that is gone, and the one that is kept.

    None if a new image was put on top of the child, which can be merged now. Raises StorageError, IN_USE
    where it can't be done now.
    """
    base = pair.chain[-1].uuid
    pace = 1.0 / (1 + rounds.pushed[base])
    images = [pair.parent] if pair.active else [pair.child, pair.parent]
    with Served.connected(registry, pair.child.uuid) as served:  # first: what a disk writes can't be locked
        served.catch_up(pair.tree)
    with ExitStack() as locks, ExitStack() as stack:
        locks.enter_context(kept_for_merging(map(name_of, images)))
        served = stack.enter_context(Served.connected(registry, pair.child.uuid, pace))
        try:
            if pair.active and _held_by(pair.child) > _limit(rounds, base):
                _put_on_top(registry, pair, served, rounds)
                return None
            return _Merging(registry, pair, served, locks, progress).run(direction)
        finally:
            rounds.longest = max(rounds.longest, served.longest)


def _limit(rounds: Rounds, base: UUID) -> int:
    return LITTLE if rounds.pushed[base] < _PATIENT_ROUNDS else _MORE


def _held_by(medium: Medium) -> int:
    return disk_usage(image_files(medium))


def _put_on_top(registry: Registry, pair: Pair, served: Served, rounds: Rounds) -> None:
    """Let the machine write a new image from now on."""
    base = pair.chain[-1].uuid
    if rounds.pushed[base] >= _ROUNDS:
        raise _later(
            pair.child,
            "its machine writes faster than images can be merged; it is tidied up when that writes less, or "
            "is off (drivebay medium tidy)",
        )
    rounds.pushed[base] += 1
    disk = _only(served, pair)
    served.require(pair.chain)
    with registry.view() as view:
        machine = load(view, disk.machine)
    diff = new_diff(pair.tree, pair.child.uuid, machine.snapshot_folder)
    with made_diffs(registry, pair.tree, [diff], in_use=True) as intent:
        with registry.change() as change:
            require_unchanged(change, pair)
            record_diffs(change, intent, [diff])
            change.put_medium(replace(pair.child, merging=True))
            save(change, _moved(load(change, disk.machine), pair.child.uuid, diff.uuid))
        try:
            disk.client.push({disk.export: diff.path})
        except StorageError:
            disk.client.quit()  # another one takes over, with the images that the registry tells
            raise


def _only(served: Served, pair: Pair) -> Disk:
    if len(served.disks) != 1:
        raise _later(pair.child, "several drives, or none, of running machines write it; stop them first")
    return served.disks[0]


def _moved(machine: Machine, old: UUID, new: UUID) -> Machine:
    """The machine with another medium in its current state."""
    attachments = tuple(
        replace(at, medium=new) if at.medium == old else at for at in machine.hardware.attachments
    )
    return replace(machine, hardware=replace(machine.hardware, attachments=attachments))


class _Merging:
    """One merge of two images, the child of which may be an active one that holds little."""

    def __init__(
        self, registry: Registry, pair: Pair, served: Served, locks: ExitStack, progress: Progress | None
    ) -> None:
        self._registry = registry
        self._pair = pair
        self._served = served
        self._locks = locks
        self._progress = progress or Manner().progress

    def run(self, direction: Direction) -> tuple[Medium, Medium]:
        """The medium that is gone, and the one that is kept."""
        pair = self._pair
        wanted = Direction.BACKWARD if pair.active else direction
        begun = begin_merge(self._registry, pair.parent, pair.child, wanted)
        backward = begun.direction is Direction.BACKWARD
        gone, kept = (pair.child, pair.parent) if backward else (pair.parent, pair.child)
        left = [one for one in pair.chain if one.uuid != gone.uuid]
        self._served.require(pair.chain, *([left] if begun.resumed else []))
        files = image_files(gone)
        if not pair.active:
            self._merge(begun, Manner(self._progress, self._served.held, lock=False, batch=BATCH))
        with self._registry.change() as change:
            require_unchanged(change, pair)
            above = self._pair.tree.children(gone.uuid) if backward else [kept]
            kept = record_merge(change, begun, kept=kept, gone=gone)
            change.after_commit(Remove(files))
            with self._served.settled():
                if pair.active:
                    self._merge(begun, Manner(self._progress, lock=False))
                self._require_empty(gone)
                for child in above:
                    self._relink(child, left[0] if backward else left[1])
                if pair.active:
                    self._locks.close()  # the worker is to write it; nobody else can while it serves it
                self._served.rebase(change)
        return gone, kept

    def _merge(self, begun: Begun, manner: Manner) -> None:
        chain = [name_of(one) for one in self._pair.chain]
        if begun.direction is Direction.BACKWARD or not (begun.resumed and is_linked(chain[0], chain[2])):
            merge(chain, begun.direction, resumed=begun.resumed, manner=manner)

    def _require_empty(self, gone: Medium) -> None:
        if holds_any(name_of(gone), lock=False):
            raise _later(gone, "it was written after it was merged")

    def _relink(self, child: Medium, parent: Medium) -> None:
        """A child that is written is settled now; another may be held for reading by those that serve it."""
        served: Sequence[Disk] = [disk for disk in self._served.disks if disk.medium.uuid == child.uuid]
        ours = served or child.uuid in (self._pair.child.uuid, self._pair.parent.uuid)
        locked: AbstractContextManager[None] = kept_for_merging([] if ours else [name_of(child)])
        with locked:
            relink(name_of(child), name_of(parent), lock=False)


def require_unchanged(change: Change, pair: Pair) -> None:
    """Whether two media and what builds on them are as they were. Raises StorageError (IN_USE)."""
    now = change.tree
    for medium in (pair.child, pair.parent):
        same = now.media.get(medium.uuid) == medium and now.children(medium.uuid) == pair.tree.children(
            medium.uuid
        )
        if not same or now.uses_of(medium.uuid) != pair.tree.uses_of(medium.uuid):
            raise _later(medium, "somebody changed its place in the tree of media meanwhile")


def _later(medium: Medium, why: str) -> StorageError:
    return StorageError(
        ErrorKind.IN_USE, f"{why}; it is merged the next time", path=medium.path, operation="merge"
    )
