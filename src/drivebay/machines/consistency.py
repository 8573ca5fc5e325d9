"""What must hold within a machine, whatever its media are (virtual-storage specification, E64)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import KINDS
from drivebay.machines.model import Hardware, Machine


def require_consistent(machine: Machine) -> None:
    """Raise StorageError (CORRUPT) with the first thing that can't be (E64)."""
    faults = _faults(machine)
    if (fault := next(faults, None)) is not None:
        raise StorageError(
            ErrorKind.CORRUPT,
            f"machine {machine.name!r} can't be like this: {fault}; mend its file, or take it from a backup",
            path=machine.folder,
            operation="read a machine",
        )


def _faults(machine: Machine) -> Iterator[str]:
    yield from _snapshot_faults(machine)
    yield from _hardware_faults(machine.hardware)
    for snapshot in machine.snapshots:
        yield from (
            f"{fault} (in snapshot {snapshot.name!r})" for fault in _hardware_faults(snapshot.hardware)
        )


def _snapshot_faults(machine: Machine) -> Iterator[str]:
    parents = {snapshot.uuid: snapshot.parent for snapshot in machine.snapshots}
    for uuid in _twice(snapshot.uuid for snapshot in machine.snapshots):
        yield f"two snapshots have the UUID {uuid}"
    if machine.current is not None and machine.current not in parents:
        yield f"its current snapshot {machine.current} isn't there"
    for uuid, parent in parents.items():
        if parent is not None and parent not in parents:
            yield f"the parent {parent} of snapshot {uuid} isn't there"
    if all(parent in parents for parent in parents.values() if parent) and _loops(parents):
        yield "a snapshot descends from itself"


def _loops(parents: dict[UUID, UUID | None]) -> bool:
    """Whether taking away childless snapshots, again and again, leaves any."""
    children = Counter(parent for parent in parents.values() if parent)
    ends = [uuid for uuid in parents if not children[uuid]]
    for uuid in ends:
        parent = parents[uuid]
        if parent is not None:
            children[parent] -= 1
            if not children[parent]:
                ends.append(parent)
    return len(ends) < len(parents)


def _hardware_faults(hardware: Hardware) -> Iterator[str]:
    controllers = {controller.name: controller for controller in hardware.controllers}
    groups = {group.name for group in hardware.bandwidth_groups}
    for name in _twice(controller.name for controller in hardware.controllers):
        yield f"two controllers are called {name!r}"
    for controller in hardware.controllers:
        for kind in {controller.kind, controller.substitute} - {""}:
            if kind not in KINDS:
                yield f"there is no kind of controller called {kind[:60]!r}"
    for name in _twice(group.name for group in hardware.bandwidth_groups):
        yield f"two bandwidth groups are called {name!r}"
    for slot in _twice(at.slot for at in hardware.attachments):
        yield f"two drives are in slot {slot}"
    for at in hardware.attachments:
        if at.slot.controller not in controllers:
            yield f"slot {at.slot} is on a controller that isn't there"
        if at.bandwidth_group and at.bandwidth_group not in groups:
            yield f"slot {at.slot} is in a bandwidth group {at.bandwidth_group!r} that isn't there"


def _twice(values: Iterable[object]) -> list[object]:
    return [value for value, times in Counter(values).items() if times > 1]
