"""A machine with all that is known of it: its slots, the chains in them, and what comes at the next start."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from drivebay.machines.checks import faults
from drivebay.machines.controllers import drives_on
from drivebay.machines.document import chain_of
from drivebay.machines.model import Attachment, Controller, Machine
from drivebay.machines.write_modes import Reset, reset_plan
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.registry.medium import MediaTree
from drivebay.service.machines.live import load_live
from drivebay.service.media_state import MediumInfo, condition_of, media_info


@dataclass(frozen=True, slots=True)
class DriveInfo:
    """A drive; ``chain`` is its medium and its ancestors. ``reset`` is set where auto-reset is in play."""

    attachment: Attachment
    chain: tuple[MediumInfo, ...]
    reset: Reset | None = None


@dataclass(frozen=True, slots=True)
class ControllerInfo:
    """A controller and its drives, by slot."""

    controller: Controller
    drives: tuple[DriveInfo, ...]


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """A machine. ``faults`` are what keeps it from being started."""

    machine: Machine
    controllers: tuple[ControllerInfo, ...]
    faults: tuple[str, ...]


def machine_info(home: Home, name: str) -> MachineInfo:
    """All that is known of a machine; its images are looked at. Raises StorageError."""
    with open_registry(home) as registry, registry.view() as view:
        machine = load_live(view, home, name)
        known = {info.medium.uuid: info for info in media_info(view, check=False)}
        tree = view.tree
    resets = {reset.attachment.slot: reset for reset in reset_plan(machine, tree)}

    def drive(at: Attachment) -> DriveInfo:
        chain = tuple(_checked(tree, known[medium.uuid]) for medium in chain_of(tree, at.medium))
        return DriveInfo(at, chain, resets.get(at.slot))

    controllers = tuple(
        ControllerInfo(one, tuple(drive(at) for at in drives_on(machine, one.name)))
        for one in machine.hardware.controllers
    )
    return MachineInfo(machine, controllers, tuple(faults(machine, tree)))


def _checked(tree: MediaTree, info: MediumInfo) -> MediumInfo:
    return dataclasses.replace(info, condition=condition_of(tree, info.medium))
