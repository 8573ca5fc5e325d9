"""Two commands at one machine, one of which starts it: what it starts with is changed by nobody."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Slot
from drivebay.registry.home import Home
from drivebay.registry.medium import MediumType
from drivebay.service.clones import clone_machine
from drivebay.service.machines.drives import detach
from drivebay.service.machines.lifecycle import edit_machine, rename_machine
from drivebay.service.machines.removal import remove_machine
from drivebay.service.machines.request import Place
from drivebay.service.runtime import start
from drivebay.service.runtime.presence import SupervisorLock
from drivebay.service.snapshots import restore_snapshot, take_snapshot
from support.machines import medium, named
from support.real_lab import RealLab

SLOT = Slot("SATA", 0)
STARTING = importlib.import_module("drivebay.service.runtime.start")
COMMANDS: dict[str, Callable[[Home], object]] = {
    "snapshot take": lambda home: take_snapshot(home, "vm", "new"),
    "snapshot restore": lambda home: restore_snapshot(home, "vm"),
    "clone": lambda home: clone_machine(home, "vm", "other"),
    "detach": lambda home: detach(home, "vm", Place("SATA", 0)),
    "edit": lambda home: edit_machine(home, "vm", description="new"),
    "rename": lambda home: rename_machine(home, "vm", "other"),
    "remove": lambda home: remove_machine(home, "vm"),
}


@pytest.fixture
def lab(tmp_path: Path) -> RealLab:
    """A machine, and a disk for it."""
    lab = RealLab(tmp_path)
    lab.machine("vm")
    lab.add(medium("disk", size=1 << 20))
    return lab


@pytest.fixture
def forgetful(lab: RealLab) -> RealLab:
    """The machine's disk forgets all at its start."""
    lab.set_type(replace(lab.media[named("disk")], type=MediumType.IMMUTABLE))
    lab.attach(named("vm"), SLOT, named("disk"))
    return lab


@pytest.mark.parametrize("command", COMMANDS)
def test_while_it_is_started_no_command_changes_a_machine(lab: RealLab, command: str) -> None:
    lab.attach(named("vm"), SLOT, named("disk"))
    lab.take(named("vm"), "old")
    before = lab.machines, lab.media, lab.files()
    lock = SupervisorLock(lab.home.run_folder(named("vm")))
    assert lock.take()
    with pytest.raises(StorageError, match="is being started") as caught:
        COMMANDS[command](lab.home)
    assert caught.value.kind is ErrorKind.IN_USE
    assert (lab.machines, lab.media, lab.files()) == before
    lock.close()
    COMMANDS[command](lab.home)


def _in_the_middle(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Another command runs while a start makes the image that holds nothing yet."""
    make_empty = STARTING._make_empty

    def and_something_else(*arguments: object) -> None:
        make_empty(*arguments)
        what()

    monkeypatch.setattr(STARTING, "_make_empty", and_something_else)


def _state(lab: RealLab, disk: UUID) -> tuple[object, ...]:
    return lab.machines, lab.media, lab.files(), os.stat(lab.media[disk].path).st_ino


def test_a_start_forgets_nothing_that_another_one_has_begun_to_write(
    forgetful: RealLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _state(forgetful, disk := forgetful.medium_at(named("vm"), SLOT))
    lock = SupervisorLock(forgetful.home.run_folder(named("vm")))
    _in_the_middle(monkeypatch, lock.take)
    with pytest.raises(StorageError, match="is being started") as caught:
        start(forgetful.home, "vm")
    assert caught.value.kind is ErrorKind.IN_USE
    assert _state(forgetful, disk) == before
    lock.close()


def test_a_start_forgets_nothing_that_a_snapshot_has_kept_meanwhile(
    forgetful: RealLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = forgetful.medium_at(named("vm"), SLOT)
    forgetful.write(named("vm"), SLOT, 1, 7)
    _in_the_middle(monkeypatch, lambda: forgetful.take(named("vm"), "kept"))
    with pytest.raises(StorageError, match="changed meanwhile"):
        start(forgetful.home, "vm")
    assert forgetful.view(forgetful.tree, kept) == {1: 7}
