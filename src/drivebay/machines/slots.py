"""Slots of a machine: which there are, which is taken when none is named (specification, 1.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.controllers import find_controller, raise_ports
from drivebay.machines.kinds import ControllerKind, kind_of
from drivebay.machines.model import Attachment, Controller, Machine, Slot
from drivebay.registry.medium import DeviceType


def find_attachment(machine: Machine, slot: Slot) -> Attachment:
    """What is in ``slot``. Raises StorageError (NOT_FOUND, E12)."""
    found = attachment_at(machine, slot)
    if found is not None:
        return found
    find_controller(machine, slot.controller)
    raise StorageError(
        ErrorKind.NOT_FOUND,
        f"nothing is attached at {slot} of machine {machine.name!r}; drivebay machine show tells what is "
        "where",
        operation="look up an attachment",
    )


def attachment_at(machine: Machine, slot: Slot) -> Attachment | None:
    """What is in ``slot``, or None."""
    return next((at for at in machine.hardware.attachments if at.slot == slot), None)


def with_slot(machine: Machine, slot: Slot) -> Machine:
    """The machine with ``slot``, for which its controller may get more ports (1.2).

    Raises StorageError (E4; INVALID, E5).
    """
    controller = find_controller(machine, slot.controller)
    row = kind_of(controller.kind)
    grown = raise_ports(machine, controller, slot.port)
    ports = find_controller(grown, slot.controller).ports
    if not (0 <= slot.port < ports and 0 <= slot.device < row.devices):
        raise StorageError(
            ErrorKind.INVALID,
            f"there is no slot {slot}: controller {controller.name!r} ({row.name}) has "
            f"{_range('port', ports)} "
            f"and {_range('device', row.devices)} on each; choose one of these",
            operation="choose a slot",
        )
    return grown


def _range(what: str, number: int) -> str:
    return f"{what} 0" if number == 1 else f"{what}s 0 to {number - 1}"


def choose_slot(
    machine: Machine,
    device: DeviceType,
    controller: str | None = None,
    port: int | None = None,
    unit: int | None = None,
) -> Slot:
    """The slot that is meant where not all of it is said: the first free one that takes a ``device``.

    ``unit`` is the device on the port. Raises StorageError: NOT_FOUND for an unknown controller (E4), INVALID
    where none takes such a device (E11), IN_USE where all slots are taken (E6).
    """
    if controller is not None and port is not None and unit is not None:
        return Slot(controller, port, unit)
    if controller is None and (port is not None or unit is not None):
        controller = _the_only_controller(machine)
    wanted = _candidates(machine, device, controller)
    for slot in itertools.chain.from_iterable(_slots(one) for one in wanted):
        fits = port in (None, slot.port) and unit in (None, slot.device)
        if fits and (attachment_at(machine, slot) is None):
            return slot
    if controller is not None and port is not None:
        return Slot(controller, port, unit or 0)  # taken, or beyond the last one: attaching says so
    names = ", ".join(repr(one.name) for one in wanted)
    raise StorageError(
        ErrorKind.IN_USE,
        f"all slots of machine {machine.name!r} on {names} are taken; detach a drive, or add a controller",
        operation="choose a slot",
    )


def _the_only_controller(machine: Machine) -> str:
    names = [one.name for one in machine.hardware.controllers]
    if len(names) != 1:
        raise StorageError(
            ErrorKind.INVALID,
            f"machine {machine.name!r} has {len(names)} controllers; say on which this slot is: "
            "--controller NAME",
            operation="choose a slot",
        )
    return names[0]


def _candidates(machine: Machine, device: DeviceType, name: str | None) -> list[Controller]:
    if name is not None:
        return [find_controller(machine, name)]
    fitting = [one for one in machine.hardware.controllers if device in kind_of(one.kind).accepts]
    if not fitting:
        raise StorageError(
            ErrorKind.INVALID,
            f"machine {machine.name!r} has no controller that takes a {device.value} drive; "
            "add one first: drivebay controller add",
            operation="choose a slot",
        )
    return fitting


def _slots(controller: Controller) -> Iterator[Slot]:
    """All slots in order, also those that the controller would have with more ports."""
    row: ControllerKind = kind_of(controller.kind)
    ports = row.ports[1] if row.grows else controller.ports
    for port, device in itertools.product(range(ports), range(row.devices)):
        yield Slot(controller.name, port, device)
