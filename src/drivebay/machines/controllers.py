"""Controllers of a machine: added, removed, renamed, changed. Pure (virtual-storage specification, 1.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import Bus, ControllerKind, kind_of, kinds_on
from drivebay.machines.model import Attachment, Controller, Machine
from drivebay.machines.mutability import require_off, with_hardware
from drivebay.machines.names import require_name


def find_controller(machine: Machine, name: str) -> Controller:
    """The controller called ``name``. Raises StorageError (NOT_FOUND, E4)."""
    for controller in machine.hardware.controllers:
        if controller.name == name:
            return controller
    known = ", ".join(repr(one.name) for one in machine.hardware.controllers) or "none at all"
    raise StorageError(
        ErrorKind.NOT_FOUND,
        f"machine {machine.name!r} has no controller {name[:60]!r}; it has {known}",
        operation="look up a controller",
    )


def used_kind(controller: Controller) -> ControllerKind:
    """The row that QEMU takes for a controller: its substitute's, if it has one."""
    return kind_of(controller.substitute or controller.kind)


def drives_on(machine: Machine, name: str) -> Iterator[Attachment]:
    """The attachments on a controller."""
    return (at for at in machine.hardware.attachments if at.slot.controller == name)


def add_controller(
    machine: Machine,
    name: str,
    kind: str,
    *,
    ports: int | None = None,
    host_io_cache: bool | None = None,
    bootable: bool | None = None,
    substitute: str = "",
) -> Machine:
    """The machine with one controller more; what is not given is as the table says.

    Raises StorageError: IN_USE for a name that is taken (E1), INVALID for too many controllers of the bus
    (E2), an unknown kind or a number of ports out of range (E3), STATE (E9).
    """
    require_off(machine, "add a controller")
    require_name(name, "controller")
    _require_free(machine, name)
    row = kind_of(kind)
    made = Controller(
        name,
        row.name,
        row.ports[2] if ports is None else ports,
        _next_instance(machine, row),
        row.host_io_cache if host_io_cache is None else host_io_cache,
        not any(one.bootable for one in _siblings(machine, row.name)) if bootable is None else bootable,
        _substitute(row, substitute),
    )
    _require_ports(row, made.ports)
    return _with_controllers(machine, (*machine.hardware.controllers, made), made)


def remove_controller(machine: Machine, name: str) -> Machine:
    """The machine without this controller and all that is attached to it. Raises StorageError (E4, E9)."""
    require_off(machine, "remove a controller")
    gone = find_controller(machine, name)
    return with_hardware(
        machine,
        controllers=tuple(one for one in machine.hardware.controllers if one != gone),
        attachments=tuple(at for at in machine.hardware.attachments if at.slot.controller != name),
    )


def rename_controller(machine: Machine, name: str, new: str) -> Machine:
    """The machine with this controller renamed, its attachments along. Raises StorageError (E1, E4, E9)."""
    require_off(machine, "rename a controller")
    old = find_controller(machine, name)
    require_name(new, "controller")
    if new != name:
        _require_free(machine, new)
    renamed = dataclasses.replace(old, name=new)
    attachments = [
        dataclasses.replace(at, slot=dataclasses.replace(at.slot, controller=new))
        if at.slot.controller == name
        else at
        for at in machine.hardware.attachments
    ]
    return with_hardware(_swap(machine, old, renamed), attachments=tuple(attachments))


def edit_controller(
    machine: Machine,
    name: str,
    *,
    kind: str | None = None,
    ports: int | None = None,
    host_io_cache: bool | None = None,
    bootable: bool | None = None,
    substitute: str | None = None,
) -> Machine:
    """The machine with this controller changed; what is None stays.

    A kind of the same bus keeps the number of ports as far as it can; ``substitute`` "" takes one away.
    Raises StorageError: INVALID (E3), IN_USE for ports that are taken away from drives, NOT_FOUND (E4),
    STATE (E9).
    """
    require_off(machine, "change a controller")
    old = find_controller(machine, name)
    row = kind_of(kind or old.kind)
    if row.bus is not kind_of(old.kind).bus:
        raise _invalid(_other_bus(old, row))
    wanted = _nearest(row, old.ports) if ports is None else ports
    _require_ports(row, wanted)
    _require_unused(machine, name, wanted)
    new = dataclasses.replace(
        old,
        kind=row.name,
        ports=wanted,
        host_io_cache=old.host_io_cache if host_io_cache is None else host_io_cache,
        bootable=old.bootable if bootable is None else bootable,
        substitute=_substitute(row, _kept(old, row) if substitute is None else substitute),
    )
    return _swap(machine, old, new)


def raise_ports(machine: Machine, controller: Controller, port: int) -> Machine:
    """The machine with ``port`` on this controller, if its kind grows so far (1.2)."""
    row = kind_of(controller.kind)
    if port < controller.ports or not row.grows or port >= row.ports[1]:
        return machine
    return _swap(machine, controller, dataclasses.replace(controller, ports=port + 1))


def _require_free(machine: Machine, name: str) -> None:
    if any(one.name == name for one in machine.hardware.controllers):
        raise StorageError(
            ErrorKind.IN_USE,
            f"machine {machine.name!r} has a controller called {name!r} already; choose another name",
            operation="name a controller",
        )


def _next_instance(machine: Machine, row: ControllerKind) -> int:
    taken = [one.instance for one in machine.hardware.controllers if kind_of(one.kind).bus is row.bus]
    if len(taken) >= row.max_instances:
        raise _invalid(
            f"machine {machine.name!r} has {len(taken)} {row.bus.value} controllers already, which is the "
            "most "
            "it can have; use their free ports, or another kind of controller"
        )
    return max(taken, default=-1) + 1


def _require_ports(row: ControllerKind, ports: int) -> None:
    least, most, _ = row.ports
    if not least <= ports <= most:
        allowed = f"always has {least}" if least == most else f"can have {least} to {most}"
        raise _invalid(f"{row.name} {allowed} ports, not {ports}; choose a number it can have")


def _require_unused(machine: Machine, name: str, ports: int) -> None:
    lost = sorted(at.slot for at in drives_on(machine, name) if at.slot.port >= ports)
    if lost:
        raise StorageError(
            ErrorKind.IN_USE,
            f"with {ports} ports there would be no slot for {', '.join(map(str, lost))}; detach these first",
            operation="change a controller",
        )


def _nearest(row: ControllerKind, ports: int) -> int:
    least, most, _ = row.ports
    return min(max(ports, least), most)


def _kept(old: Controller, row: ControllerKind) -> str:
    return old.substitute if old.kind == row.name else ""


def _substitute(row: ControllerKind, name: str) -> str:
    if not name:
        return ""
    chosen = kind_of(name).name
    if chosen not in row.closest:
        fitting = f"these can: {', '.join(row.closest)}" if row.closest else "it needs no substitute"
        raise _invalid(f"{chosen} can't stand in for {row.name}; {fitting}")
    return chosen


def _other_bus(old: Controller, row: ControllerKind) -> str:
    bus: Bus = kind_of(old.kind).bus
    fitting = ", ".join(one.name for one in kinds_on(bus))
    return (
        f"controller {old.name!r} is on the {bus.value} bus and can't become {row.name}, which is not; "
        "choose "
        f"one of {fitting}, or add a new controller and attach the drives there"
    )


def _siblings(machine: Machine, kind: str) -> list[Controller]:
    return [one for one in machine.hardware.controllers if one.kind == kind]


def _swap(machine: Machine, old: Controller, new: Controller) -> Machine:
    controllers = (new if one == old else one for one in machine.hardware.controllers)
    return _with_controllers(machine, tuple(controllers), new)


def _with_controllers(machine: Machine, controllers: tuple[Controller, ...], latest: Controller) -> Machine:
    """At most one controller of a kind is bootable: the latest that was made so (1.2)."""
    if latest.bootable:
        controllers = tuple(
            dataclasses.replace(one, bootable=False) if one.kind == latest.kind and one != latest else one
            for one in controllers
        )
    return with_hardware(machine, controllers=controllers)


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="change a controller")
