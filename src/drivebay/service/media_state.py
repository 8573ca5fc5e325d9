"""What is known of media, and what their files say right now: states, sizes, users."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from shlex import quote
from uuid import UUID

from drivebay.chain.candidate import identity_uuid
from drivebay.chain.file_set import FileSet, file_set
from drivebay.chain.image import image_file
from drivebay.chain.lock_state import LockState, lock_state
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import raw
from drivebay.machines.store import load_all
from drivebay.machines.write_modes import is_captured, reset_plan
from drivebay.model import NULL_UUID, ImageFacts
from drivebay.registry.database import View
from drivebay.registry.medium import ALWAYS_DIFFED, MediaTree, Medium, MediumType


class MediumState(enum.Enum):
    """The state of a medium's file (3.2); nothing is known of it before it is looked at."""

    UNKNOWN = "unknown"
    CREATED = "created"
    LOCKED_READ = "locked-read"
    LOCKED_WRITE = "locked-write"
    INACCESSIBLE = "inaccessible"


_OF_LOCKS = {
    LockState.FREE: MediumState.CREATED,
    LockState.READ: MediumState.LOCKED_READ,
    LockState.WRITE: MediumState.LOCKED_WRITE,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A state with its reason (who locked it, why it can't be used) and, if it can be read, the files."""

    state: MediumState
    reason: str = ""
    files: FileSet | None = None


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A machine that uses a medium: in its current state, in the named snapshots, or both."""

    machine: UUID
    name: str
    current: bool
    snapshots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResetInfo:
    """Whether a diff forgets everything when ``machine`` starts next, and why."""

    machine: str
    will_reset: bool
    because: str


@dataclass(frozen=True, slots=True)
class MediumInfo:
    """A medium with all that is known of it. Sizes in bytes, of all its files; 0 where it can't be read.

    ``write_mode`` is its base's type, ``read_only`` says why no guest writes it, empty where one may.
    """

    medium: Medium
    write_mode: MediumType | None
    condition: Condition
    users: tuple[UserInfo, ...]
    children: tuple[UUID, ...]
    read_only: str
    resets: tuple[ResetInfo, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it is what a machine reads and writes now."""
        return any(user.current for user in self.users)

    @property
    def file_size(self) -> int:
        """How long its files are."""
        return self.condition.files.file_size if self.condition.files else 0

    @property
    def disk_usage(self) -> int:
        """What its files take on the host."""
        return self.condition.files.disk_usage if self.condition.files else 0


def own_uuid(facts: ImageFacts, path: str) -> UUID | None:
    """The UUID that an image itself holds, if its format has one.

    A child that knows its parent by no UUID holds that of the disk, which is the same all along its chain.
    """
    of_the_disk = facts.differencing and facts.parent_uuid == NULL_UUID
    return None if of_the_disk or facts.uuid in (NULL_UUID, raw.identity(path)) else facts.uuid


def media_info(view: View, *, only: UUID | None = None, check: bool = True) -> list[MediumInfo]:
    """All media, by path, or ``only`` one; without ``check`` no file is looked at."""
    machines = load_all(view)
    tree = view.tree
    names = {one.uuid: one.name for one in machines}
    snapshots = {taken.uuid: taken.name for one in machines for taken in one.snapshots}
    resets: dict[UUID, list[ResetInfo]] = {}
    for machine in machines:
        for reset in reset_plan(machine, tree):
            info = ResetInfo(machine.name, reset.will_reset, reset.because)
            resets.setdefault(reset.medium.uuid, []).append(info)
    return [
        MediumInfo(
            medium,
            _write_mode(tree, medium),
            condition_of(tree, medium) if check else Condition(MediumState.UNKNOWN, "not looked at"),
            _users(tree, medium, names, snapshots),
            _children(tree, medium),
            _read_only(tree, medium),
            tuple(resets.get(medium.uuid, ())),
        )
        for medium in sorted(tree.media.values(), key=lambda one: one.path)
        if only in (None, medium.uuid)
    ]


def _write_mode(tree: MediaTree, medium: Medium) -> MediumType | None:
    try:
        return tree.base(medium.uuid).type
    except StorageError:  # an ancestor is not registered
        return None


def _users(
    tree: MediaTree, medium: Medium, names: dict[UUID, str], snapshots: dict[UUID, str]
) -> tuple[UserInfo, ...]:
    found: dict[UUID, list[UUID | None]] = {}
    for use in tree.uses_of(medium.uuid):
        found.setdefault(use.machine, []).append(use.snapshot)
    return tuple(
        UserInfo(
            machine,
            names.get(machine, f"{{{machine}}}"),
            None in taken,
            tuple(sorted(snapshots.get(one, str(one)) for one in taken if one is not None)),
        )
        for machine, taken in sorted(found.items(), key=lambda one: names.get(one[0], ""))
    )


def _children(tree: MediaTree, medium: Medium) -> tuple[UUID, ...]:
    children = sorted(tree.children(medium.uuid), key=lambda child: child.path)
    return tuple(child.uuid for child in children)


def _read_only(tree: MediaTree, medium: Medium) -> str:
    if tree.children(medium.uuid):
        return "other images build on it"
    if medium.type in ALWAYS_DIFFED or medium.type is MediumType.READONLY:
        return f"its type is {medium.type.value}"
    if any(use.snapshot is not None for use in tree.uses_of(medium.uuid)) and _is_kept(tree, medium):
        return "a snapshot keeps it"
    return "" if os.access(image_file(medium.path), os.W_OK) else "the file can't be written"


def _is_kept(tree: MediaTree, medium: Medium) -> bool:
    """Snapshots keep the contents of disks that may have diffs, and name the others only (table 6.2)."""
    return _write_mode(tree, medium) is not None and is_captured(tree, medium)


def condition_of(tree: MediaTree, medium: Medium) -> Condition:
    """Look at a medium's file: whether it is there, readable, still the same, and who holds it (3.3)."""
    try:
        files = file_set(medium.path, medium.format)
        require_same(medium, files.facts)
        _require_parent(tree, medium, files.facts)
        lock = lock_state(image_file(medium.path))
    except StorageError as error:
        return Condition(MediumState.INACCESSIBLE, str(error))
    return Condition(_OF_LOCKS[lock.state], lock.holder, files)


def require_same(medium: Medium, facts: ImageFacts, path: str | None = None) -> None:
    """E26: the file at the medium's place (or at ``path``) holds the medium's UUID, if it holds any."""
    place = path or medium.path
    found = own_uuid(facts, place)
    if found is None or found == medium.uuid:
        return
    raise StorageError(
        ErrorKind.STATE,
        f"the registry knows {{{medium.uuid}}} here, but the file is {{{found}}}: another image. If the "
        f"medium moved, say where to: drivebay medium relink {medium.uuid} PATH. If this file is to be "
        f"the medium: drivebay medium adopt {quote(place)}. If the medium is no longer wanted: "
        f"drivebay medium replace {quote(place)}",
        path=place,
        operation="check a medium",
    )


def _require_parent(tree: MediaTree, medium: Medium, facts: ImageFacts) -> None:
    """E27, E28: the file and the registry agree on the parent."""
    if facts.differencing != (medium.parent is not None):
        has = "a parent" if facts.differencing else "no parent"
        raise _wrong_parent(medium, f"the file has {has}, the registry has it the other way round")
    if medium.parent is None:
        return
    parent = tree.media.get(medium.parent)
    if parent is None:
        raise _wrong_parent(medium, f"its parent {{{medium.parent}}} is not registered (any more)")
    known = {NULL_UUID, parent.uuid, _name_uuid(parent)}
    if facts.parent_uuid not in known:
        what = f"its file names the parent {{{facts.parent_uuid}}}, the registry {{{parent.uuid}}}"
        raise _wrong_parent(medium, what)


def _name_uuid(parent: Medium) -> UUID:
    """What a child calls a parent that has no UUID of its own."""
    facts = ImageFacts(parent.format, parent.variant, parent.size)
    path = image_file(parent.path)
    return raw.identity(path) if parent.format == "raw" else identity_uuid(facts, path)


def _wrong_parent(medium: Medium, what: str) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"{what}. Register the right parent (drivebay medium add), or close this medium and add it again",
        path=medium.path,
        operation="check a medium",
    )


def require_free(medium: Medium, what: str) -> None:
    """E31: nobody has the medium's file open. Raises StorageError (IN_USE) that names who has."""
    try:
        lock = lock_state(image_file(medium.path))
    except StorageError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return
        raise
    if lock.state is not LockState.FREE:
        raise StorageError(
            ErrorKind.IN_USE,
            f"can't {what} it while it is in use: {lock.holder}; stop the machine (or wait), then try again",
            path=medium.path,
            operation=what,
        )
