"""What a user asks for when a drive is to be attached, and what that means on a machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.controllers import find_controller
from drivebay.machines.kinds import kind_of
from drivebay.machines.model import Attachment, Machine, Slot
from drivebay.machines.slots import attachment_at, choose_slot
from drivebay.registry.medium import DeviceType, Medium, MediumType


@dataclass(frozen=True, slots=True)
class Place:
    """A slot as far as the user named it; ``unit`` is the device on the port."""

    controller: str | None = None
    port: int | None = None
    unit: int | None = None

    def exact(self) -> Slot | None:
        """The slot, if its controller and port are named."""
        if self.controller is None or self.port is None:
            return None
        return Slot(self.controller, self.port, self.unit or 0)

    def taken(self, machine: Machine) -> Attachment | None:
        """What is there already, if a slot was named."""
        slot = self.exact()
        return None if slot is None else attachment_at(machine, slot)


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """A drive to be attached, filled or changed.

    ``medium`` is a file or a UUID, None to leave it as it is; ``empty`` asks for a drive without a medium.
    ``flags`` are fields of `Attachment`; ``type`` is a write mode to be set before; ``force`` breaks a lock
    that the guest put on its drive.
    """

    place: Place = field(default_factory=Place)
    medium: str | None = None
    empty: bool = False
    device: DeviceType | None = None
    type: MediumType | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False


def device_hint(machine: Machine, request: AttachRequest) -> DeviceType | None:
    """The kind of drive that the request names, or that its place leaves as the only choice."""
    if request.device is not None:
        return request.device
    if (there := request.place.taken(machine)) is not None:
        return there.device
    if request.place.controller is None:
        return None
    accepted = kind_of(find_controller(machine, request.place.controller).kind).accepts
    return next(iter(accepted)) if len(accepted) == 1 else None


def wanted_drive(machine: Machine, request: AttachRequest, medium: Medium | None) -> Attachment:
    """The drive to be attached. Raises StorageError, as `choose_slot`; INVALID for nothing."""
    if medium is None and not request.empty:
        raise StorageError(
            ErrorKind.INVALID,
            "say what to attach: --medium with a file or a UUID, or --medium empty for an empty drive",
            operation="attach a drive",
        )
    device = request.device or (medium.device if medium else device_hint(machine, request) or DeviceType.DVD)
    place = request.place
    slot = choose_slot(machine, device, place.controller, place.port, place.unit)
    made = Attachment(slot, device, medium.uuid if medium else None)
    return dataclasses.replace(made, **request.flags)
