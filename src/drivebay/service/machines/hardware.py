"""Controllers and bandwidth groups of registered machines."""

from __future__ import annotations

from typing import Any

from drivebay.machines import bandwidth, controllers
from drivebay.machines.model import Attachment, BandwidthGroup, Controller, Machine
from drivebay.machines.mutability import RUNNING
from drivebay.machines.store import load
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.service.machines import live
from drivebay.service.machines.changes import change_machine


def add_controller(home: Home, machine: str, name: str, kind: str, **fields: Any) -> Controller:
    """Give a machine a controller (see `drivebay.machines.controllers.add_controller`). StorageError."""
    after = change_machine(home, machine, lambda one: controllers.add_controller(one, name, kind, **fields))
    return controllers.find_controller(after, name)


def remove_controller(home: Home, machine: str, name: str) -> Machine:
    """Take away a controller with all drives on it; their media stay. Raises StorageError."""
    return change_machine(home, machine, lambda one: controllers.remove_controller(one, name))


def rename_controller(home: Home, machine: str, name: str, new: str) -> Controller:
    """Rename a controller. Raises StorageError."""
    after = change_machine(home, machine, lambda one: controllers.rename_controller(one, name, new))
    return controllers.find_controller(after, new)


def edit_controller(home: Home, machine: str, name: str, **fields: Any) -> Controller:
    """Change a controller (see `drivebay.machines.controllers.edit_controller`). Raises StorageError."""
    after = change_machine(home, machine, lambda one: controllers.edit_controller(one, name, **fields))
    return controllers.find_controller(after, name)


def add_group(home: Home, machine: str, name: str, limit: str) -> BandwidthGroup:
    """Give a machine a bandwidth group; ``limit`` as `parse_limit` reads it. Raises StorageError."""
    wanted = bandwidth.parse_limit(limit)
    return bandwidth.find_group(
        change_machine(home, machine, lambda one: bandwidth.add_group(one, name, wanted)), name
    )


def set_limit(home: Home, machine: str, name: str, limit: str) -> BandwidthGroup:
    """Change a group's limit; a running machine keeps to it at once. Raises StorageError."""
    wanted = bandwidth.parse_limit(limit)
    after = change_machine(home, machine, lambda one: bandwidth.set_limit(one, name, wanted))
    if after.state in RUNNING:
        live.set_limit(home, after, name, wanted)
    return bandwidth.find_group(after, name)


def remove_group(home: Home, machine: str, name: str) -> Machine:
    """Take away a bandwidth group that no drive is in. Raises StorageError."""
    return change_machine(home, machine, lambda one: bandwidth.remove_group(one, name))


def groups_of(home: Home, machine: str) -> list[BandwidthGroup]:
    """A machine's bandwidth groups. Raises StorageError."""
    return list(_read(home, machine).hardware.bandwidth_groups)


def drives_of(home: Home, machine: str, name: str) -> list[Attachment]:
    """What is attached to a controller. Raises StorageError (E4)."""
    found = _read(home, machine)
    controllers.find_controller(found, name)
    return list(controllers.drives_on(found, name))


def _read(home: Home, machine: str) -> Machine:
    with open_registry(home) as registry, registry.view() as view:
        return load(view, machine)
