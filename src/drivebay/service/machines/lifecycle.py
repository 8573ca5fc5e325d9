"""Machines made, changed, renamed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.machines.document import document_path
from drivebay.machines.model import Machine, MachineState
from drivebay.machines.mutability import require_not_running
from drivebay.machines.names import require_machine_name
from drivebay.machines.settings import edit_settings
from drivebay.machines.store import load_all, refresh, require_free_name, save
from drivebay.registry.database import Change, Registry, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove
from drivebay.service.machines.changes import change_machine
from drivebay.service.machines.live import load_to_change

_FILES = ("kernel", "initrd")


def create_machine(
    home: Home,
    name: str,
    *,
    folder: str | None = None,
    description: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Machine:
    """A new machine without controllers; ``settings`` are fields of `Settings`.

    Its folder is made; by default it is called like the machine, among home's machines. One that is there
    is taken, unless a machine is in it. Raises StorageError; a failure leaves nothing behind.
    """
    require_machine_name(name)
    place = os.path.realpath(folder or os.path.join(home.machines, name))
    made = Machine(uuid4(), name, place, description=description)
    made = edit_settings(made, **_absolute(settings or {}))
    with open_registry(home) as registry:
        with registry.view() as view:
            require_free_name(view.connection, made)
        _require_free_folder(made)
        _make(registry, made)
    return made


def _make(registry: Registry, made: Machine) -> None:
    place = made.folder
    with registry.intend([place]) as intent:
        try:
            os.makedirs(place, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, "make a machine's folder", path=place) from error
        with registry.change() as change:
            _require_own_folder(change, made)
            save(change, made)
            change.finish(intent)


def list_machines(home: Home) -> list[Machine]:
    """All machines, by name. Raises StorageError."""
    with open_registry(home) as registry, registry.view() as view:
        return load_all(view)


def edit_machine(
    home: Home, name: str, *, settings: Mapping[str, Any] | None = None, description: str | None = None
) -> Machine:
    """Change fields of a machine's settings, and its description. Raises StorageError."""

    def edit(machine: Machine) -> Machine:
        edited = edit_settings(machine, **_absolute(settings)) if settings else machine
        return edited if description is None else dataclasses.replace(edited, description=description)

    return change_machine(home, name, edit)


def rename_machine(home: Home, name: str, new: str) -> Machine:
    """Give a machine another name; its folder gets it, too, if it was called like the machine.

    The images in the folder are found at their new paths. Raises StorageError: INVALID, IN_USE, STATE.
    """
    require_machine_name(new)
    with open_registry(home) as registry, registry.change() as change:
        machine = load_to_change(change, home, name)
        require_not_running(machine, "rename a machine")
        require_free_name(change.connection, dataclasses.replace(machine, name=new))
        renamed = dataclasses.replace(machine, name=new, folder=_new_folder(machine, new))
        moved = _move_media(change, machine, renamed)
        save(change, renamed)
        refresh(change, moved)
    return renamed


def discard_state(home: Home, name: str) -> Machine:
    """Forget the saved state of a machine, which is off then, as if its power had been cut.

    A state that a snapshot shares stays for that. Raises StorageError (STATE).
    """
    with open_registry(home) as registry, registry.change() as change:
        machine = load_to_change(change, home, name)
        if machine.state is not MachineState.SAVED:
            raise StorageError(
                ErrorKind.STATE,
                f"machine {machine.name!r} is {machine.state.value}, and has no saved state to forget; "
                "save one with drivebay machine save",
                operation="discard",
            )
        after = dataclasses.replace(machine, state=MachineState.POWERED_OFF, state_file="")
        save(change, after)
        if all(snapshot.state_file != machine.state_file for snapshot in machine.snapshots):
            change.after_commit(Remove([os.path.join(machine.folder, machine.state_file)]))
    return after


def _absolute(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Files are named from the user's folder on, but looked for from anywhere."""
    files = {name: os.path.abspath(settings[name]) for name in _FILES if settings.get(name)}
    for path in files.values():
        if not os.path.isfile(path):
            raise StorageError(
                ErrorKind.NOT_FOUND,
                "there is no such file; check the path",
                path=path,
                operation="change settings",
            )
    return {**settings, **files}


def _require_free_folder(machine: Machine) -> None:
    if os.path.lexists(document_path(machine)):
        raise StorageError(
            ErrorKind.IN_USE,
            "there is a machine's file here already; choose another name or folder, or take this machine "
            "into the registry with drivebay rebuild",
            path=document_path(machine),
            operation="create a machine",
        )


def _require_own_folder(change: Change, machine: Machine) -> None:
    for other in load_all(change):
        if other.folder == machine.folder:
            raise StorageError(
                ErrorKind.IN_USE,
                f"this is the folder of machine {other.name!r}; choose another one",
                path=machine.folder,
                operation="create a machine",
            )


def _new_folder(machine: Machine, new: str) -> str:
    above, own = os.path.split(machine.folder)
    if own != machine.name or new == machine.name:
        return machine.folder
    folder = os.path.join(above, new)
    if os.path.lexists(folder):
        raise StorageError(
            ErrorKind.IN_USE,
            "the machine's folder can't get this name, as there is something of this name; move that away "
            "first",
            path=folder,
            operation="rename a machine",
        )
    return folder


def _move_media(change: Change, machine: Machine, renamed: Machine) -> list[Any]:
    """The media below the folder, which were registered anew with their paths in the renamed one."""
    inside = machine.folder + os.sep
    moved = [one for one in change.tree.media.values() if one.path.startswith(inside)]
    if machine.folder != renamed.folder:
        for medium in moved:
            path = os.path.join(renamed.folder, medium.path.removeprefix(inside))
            change.put_medium(dataclasses.replace(medium, path=path))
    return [medium.uuid for medium in moved]
