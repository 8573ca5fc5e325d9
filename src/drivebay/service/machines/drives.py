"""Drives attached, detached, filled and emptied, while a machine is off or runs.

Smart attach (virtual-storage specification, 5.2): where the medium itself must not be written, a differencing
image in the machine's snapshot folder takes its place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import attachments
from drivebay.machines.diffs import NewDiff
from drivebay.machines.model import Attachment, Machine, Slot
from drivebay.machines.mutability import RUNNING
from drivebay.machines.slots import find_attachment
from drivebay.machines.store import load, refresh, save
from drivebay.machines.write_modes import plan_attach
from drivebay.registry.database import Change, Registry, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.registry.medium import DeviceType, MediaTree, Medium
from drivebay.service.diffs import image_files, made_diffs, record_diffs
from drivebay.service.machines import live
from drivebay.service.machines.request import AttachRequest, Place, device_hint, wanted_drive
from drivebay.service.machines.write_mode import with_type
from drivebay.service.media import find_or_register


@dataclass(frozen=True, slots=True)
class Attached:
    """A drive as it is now. ``diff`` was made to be written in the medium's place."""

    machine: Machine
    attachment: Attachment
    diff: Medium | None = None


@dataclass(frozen=True, slots=True)
class Detached:
    """A drive that is gone. ``left`` is its medium, which stays registered."""

    machine: Machine
    attachment: Attachment
    left: Medium | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """``machine`` and ``tree`` are what they become; ``diffs`` has the diff to be made, or nothing."""

    machine: Machine
    tree: MediaTree
    attachment: Attachment
    asked: Medium | None
    diffs: tuple[NewDiff, ...] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """What must not change between planning and doing."""
        below = self.diffs[0].parent if self.diffs else self.attachment.medium
        return self.attachment.slot, below, bool(self.diffs)


def attach(home: Home, name: str, request: AttachRequest) -> Attached:
    """Attach a drive; or fill or change the one that is in the slot, where that can be.

    Raises StorageError: E4 to E15 of the specification's error table, and what media refuse; a failure
    changes nothing but that an image file may have been registered.
    """
    with open_registry(home) as registry:
        with registry.view() as view:
            machine = live.load_live(view, home, name)
        there = request.place.taken(machine)
        hint = device_hint(machine, request)
        medium = None if request.medium is None else find_or_register(registry, request.medium, hint)
        if there is None:
            return _attach_new(registry, machine, request, medium)
        return _change(registry, machine, there, request, medium)


def detach(home: Home, name: str, place: Place) -> Detached:
    """Take away a drive; its medium stays as it is. Raises StorageError (E4, E7, E8, E9, E12)."""
    with open_registry(home) as registry:
        with registry.view() as view:
            machine, tree = live.load_live(view, home, name), view.tree
        at = find_attachment(machine, _slot(machine, place))
        after = attachments.detach(machine, at)
        if machine.state in RUNNING:
            live.unplug(home, machine, at)
        with registry.change() as change:
            live.require_same(change, home, machine)
            save(change, after)
    return Detached(after, at, tree.media.get(at.medium) if at.medium else None)


def eject(home: Home, name: str, place: Place, *, force: bool = False) -> Attached:
    """Empty a DVD or floppy drive, by default the only one that holds a medium.

    ``force`` breaks the lock that a guest put on its drive. Raises StorageError (E4, E9, E12, E15, E16).
    """
    with open_registry(home) as registry:
        with registry.view() as view:
            machine = live.load_live(view, home, name)
        at = find_attachment(machine, _slot(machine, place, filled=True))
        return _insert(registry, machine, at, AttachRequest(force=force), None)


def _slot(machine: Machine, place: Place, *, filled: bool = False) -> Slot:
    """The slot that is meant: as named, or the only one with a drive (that can be emptied)."""
    if (exact := place.exact()) is not None:
        return exact
    found = [
        at.slot
        for at in machine.hardware.attachments
        if place.controller in (None, at.slot.controller) and not (filled and not _is_filled(at))
    ]
    if len(found) != 1:
        known = ", ".join(map(str, found)) or "none"
        raise StorageError(
            ErrorKind.INVALID,
            f"say which drive of machine {machine.name!r} is meant, with --controller, --port and --device; "
            f"it has {known}",
            operation="choose a slot",
        )
    return found[0]


def _is_filled(at: Attachment) -> bool:
    return at.medium is not None and at.device is not DeviceType.DISK


def _attach_new(
    registry: Registry, machine: Machine, request: AttachRequest, medium: Medium | None
) -> Attached:
    home = registry.home
    with registry.view() as view:
        plan = _plan(machine, with_type(view, medium, request.type), request, medium)
    with made_diffs(registry, plan.tree, plan.diffs) as intent, registry.change() as change:
        live.require_same(change, home, machine)
        tree = with_type(change, medium, request.type)
        if _plan(machine, tree, request, medium).shape != plan.shape:
            raise _changed(machine)
        if medium is not None and request.type is not None:
            change.put_medium(tree.get(medium.uuid))
        record_diffs(change, intent, plan.diffs)
        save(change, plan.machine)
        refresh(change, [medium.uuid] if medium is not None and request.type is not None else [])
        tree = change.tree
    if machine.state in RUNNING:
        _plug(registry, plan, tree)
    return Attached(plan.machine, plan.attachment, plan.diffs[0].medium if plan.diffs else None)


def _plan(machine: Machine, tree: MediaTree, request: AttachRequest, medium: Medium | None) -> _Plan:
    """What attaching comes to: a value, recomputed when it is done. Raises StorageError."""
    wanted = wanted_drive(machine, request, medium)
    after = attachments.attach(machine, tree, wanted)
    if medium is None:
        return _Plan(after, tree, wanted, None)
    smart = plan_attach(machine, tree, wanted.slot, medium.uuid)
    made = find_attachment(after, wanted.slot)
    final = dataclasses.replace(made, medium=smart.medium)
    diffs = (smart.diff,) if smart.diff else ()
    return _Plan(attachments.with_drive(after, made, final), tree, final, medium, diffs)


def _plug(registry: Registry, plan: _Plan, tree: MediaTree) -> None:
    """Give the drive to the running guest; if that fails, it isn't attached either."""
    try:
        live.plug(registry.home, plan.machine, tree, plan.attachment)
    except BaseException:
        with registry.change() as change:
            _take_back(change, plan)
        raise


def _take_back(change: Change, plan: _Plan) -> None:
    machine = load(change, plan.machine.uuid)
    kept = tuple(at for at in machine.hardware.attachments if at != plan.attachment)
    save(
        change, dataclasses.replace(machine, hardware=dataclasses.replace(machine.hardware, attachments=kept))
    )
    for diff in plan.diffs:
        files = image_files(diff.medium)
        change.remove_medium(diff.uuid)
        change.after_commit(Remove(files))


def _change(
    registry: Registry, machine: Machine, at: Attachment, request: AttachRequest, medium: Medium | None
) -> Attached:
    """The drive that is there gets other flags, or (DVD and floppy) another medium."""
    flags = dict(request.flags)
    if request.device not in (None, at.device) or request.type is not None:
        raise StorageError(
            ErrorKind.IN_USE,
            f"there is a {at.device.value} drive at {at.slot} already; detach it first",
            operation="attach a drive",
        )
    if medium is not None and at.device is DeviceType.DISK:
        attachments.require_vacant(machine, at)
    if flags:
        with registry.change() as change:
            live.require_same(change, registry.home, machine)
            machine = attachments.change_flags(machine, at, **flags)
            save(change, machine)
        at = find_attachment(machine, at.slot)
    if medium is None and not request.empty:
        return Attached(machine, at)
    return _insert(registry, machine, at, request, medium)


def _insert(
    registry: Registry, machine: Machine, at: Attachment, request: AttachRequest, medium: Medium | None
) -> Attached:
    """Another medium for a DVD or floppy drive: the guest first, as it may refuse (E16)."""
    home, wanted = registry.home, None if medium is None else medium.uuid
    with registry.view() as view:
        after, tree = attachments.insert(machine, view.tree, at, wanted), view.tree
    new = find_attachment(after, at.slot)
    if machine.state in RUNNING:
        live.change_medium(home, after, tree, new, force=request.force)
    with registry.change() as change:
        current = live.load_to_change(change, home, machine.uuid)
        after = attachments.insert(current, change.tree, find_attachment(current, at.slot), wanted)
        save(change, after)
    return Attached(after, new)


def _changed(machine: Machine) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"the media of machine {machine.name!r} were changed meanwhile by another command; try again",
        operation="attach a drive",
    )
