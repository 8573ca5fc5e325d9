"""What may be done with a medium, going by the tree alone (virtual-storage specification, 3.5, 3.6, 4.4).

All functions are pure; they raise a StorageError that names the rule and the way out. ``names`` are those
of machines, for messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.registry.medium import (
    ALWAYS_DIFFED,
    NEVER_DIFFED,
    DeviceType,
    MediaTree,
    Medium,
    MediumType,
    Use,
)

Names = Mapping[UUID, str]
_DEFAULTS = {DeviceType.DISK: MediumType.NORMAL, DeviceType.DVD: MediumType.READONLY}
_OF_FLOPPIES = (MediumType.WRITETHROUGH, MediumType.READONLY)


def default_type(device: DeviceType) -> MediumType:
    """The write mode of a new medium."""
    return _DEFAULTS.get(device, MediumType.WRITETHROUGH)


def is_fixed(medium: Medium) -> bool:
    """Whether all of a disk's space is there from the start, so that several writers don't move anything."""
    return medium.format == "raw" or "fixed" in medium.variant.lower() or "flat" in medium.variant.lower()


def users(uses: Iterable[Use], names: Names) -> str:
    """The machines and snapshots of ``uses``, as a message lists them."""
    found: dict[UUID, list[UUID | None]] = {}
    for use in uses:
        found.setdefault(use.machine, []).append(use.snapshot)
    return ", ".join(_user(machine, snapshots, names) for machine, snapshots in found.items())


def _user(machine: UUID, snapshots: list[UUID | None], names: Names) -> str:
    name = repr(names[machine]) if machine in names else f"{{{machine}}}"
    count = sum(1 for snapshot in snapshots if snapshot is not None)
    taken = f"{count} snapshot{'s' if count > 1 else ''} of " if count else ""
    current = "the current state of " if count and None in snapshots else ""
    return f"{current}{' and ' if current else ''}{taken}machine {name}"


def require_closable(tree: MediaTree, medium: Medium, names: Names, verb: str = "close") -> None:
    """E29: nobody uses the medium, and nothing builds on it. Raises StorageError (IN_USE)."""
    if uses := tree.uses_of(medium.uuid):
        raise _refused(
            ErrorKind.IN_USE,
            medium,
            f"can't {verb} it: {users(uses, names)} uses it; detach it there, or delete the snapshot, first",
            verb,
        )
    if children := tree.children(medium.uuid):
        paths = ", ".join(child.path for child in children[:3])
        more = f" and {len(children) - 3} more" if len(children) > 3 else ""
        raise _refused(
            ErrorKind.IN_USE,
            medium,
            f"can't {verb} it: differencing images build on it: {paths}{more}; {verb} those first",
            verb,
        )


def require_type(tree: MediaTree, medium: Medium, wanted: MediumType, names: Names) -> None:
    """E32, E33: the medium may get this write mode. Raises StorageError (STATE, IN_USE)."""
    if wanted is medium.type:
        return
    _require_kind(medium, wanted)
    _require_unattached(tree, medium, wanted, names)
    if wanted in NEVER_DIFFED and (children := tree.children(medium.uuid)):
        raise _refused(
            ErrorKind.IN_USE,
            medium,
            f"a {wanted.value} disk can't have differencing images, and {children[0].path} builds on this; "
            "delete or merge its children first",
            "set the type",
        )


def _require_kind(medium: Medium, wanted: MediumType) -> None:
    allowed = {
        DeviceType.DISK: set(MediumType) - {MediumType.READONLY},
        DeviceType.DVD: {MediumType.READONLY},
        DeviceType.FLOPPY: set(_OF_FLOPPIES),
    }[medium.device]
    reason = None
    if medium.parent is not None:
        reason = "a differencing image has the write mode of its base; set the type of that"
    elif wanted not in allowed:
        choices = " or ".join(sorted(one.value for one in allowed))
        reason = f"a {medium.device.value} can't be {wanted.value}; it can be {choices}"
    elif wanted is MediumType.SHAREABLE and not is_fixed(medium):
        reason = (
            "only a fixed-size disk can be shared by several machines that run, and this one grows; convert "
            "it to a fixed variant (create one with --variant fixed, and copy)"
        )
    if reason is not None:
        raise _refused(ErrorKind.STATE, medium, reason, "set the type")


def _require_unattached(tree: MediaTree, medium: Medium, wanted: MediumType, names: Names) -> None:
    uses = tree.uses_of(medium.uuid)
    several = len({use.machine for use in uses}) > 1
    if several or (uses and wanted in ALWAYS_DIFFED):
        why = (
            "more than one machine uses it"
            if several
            else f"the type {wanted.value} is for disks that are attached by a diff only"
        )
        raise _refused(
            ErrorKind.STATE,
            medium,
            f"{why}: {users(uses, names)}; detach it there first, set the type, and attach it again",
            "set the type",
        )


def require_diff(medium: Medium) -> None:
    """E39: only a differencing image can forget what it holds. Raises StorageError (UNSUPPORTED)."""
    if medium.parent is None:
        raise _refused(
            ErrorKind.UNSUPPORTED,
            medium,
            "this is a base, and to reset it would empty it; auto-reset is for differencing images. "
            "Set the base's type to immutable, and each attachment gets a diff with auto-reset",
            "set auto-reset",
        )


def _refused(kind: ErrorKind, medium: Medium, message: str, operation: str) -> StorageError:
    return StorageError(kind, message, path=medium.path, operation=operation)
