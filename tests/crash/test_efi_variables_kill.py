"""A process that dies while EFI variables are copied: they agree with the registry, and no file is stray."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from drivebay.machines.efi_variables import variables_of
from drivebay.machines.store import load_all
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.service.clones import clone_machine
from drivebay.service.machines import lifecycle
from drivebay.service.snapshots import delete_snapshot, restore_snapshot, take_snapshot
from support.killing import check_old_or_new

# For each state of each machine what its variables hold, and how many files with variables there are.
State = tuple[frozenset[tuple[str, str, str]], int]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills, unlike power cuts, lose nothing that was written: no need to wait for the device."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(open_registry, "__kwdefaults__", {"durable": False, "timeout": 20.0})


def _take(home: Home) -> object:
    return take_snapshot(home, "vm", "new")


def _restore(home: Home) -> object:
    return restore_snapshot(home, "vm", "old")


def _restore_none(home: Home) -> object:
    return restore_snapshot(home, "vm", "before")


def _delete(home: Home) -> object:
    return delete_snapshot(home, "vm", "old")


def _clone(home: Home) -> object:
    return clone_machine(home, "vm", "twin")


def _build(home: Home) -> None:
    machine = lifecycle.create_machine(home, "vm")
    variables = Path(variables_of(machine))
    take_snapshot(home, "vm", "before")
    variables.write_text("old")
    take_snapshot(home, "vm", "old")
    variables.write_text("now")


def _look(home: Home) -> State:
    with open_registry(home, durable=False) as registry, registry.view() as view:
        machines = load_all(view)
    found = set()
    for one in machines:
        for name, uuid in (("", None), *((each.name, each.uuid) for each in one.snapshots)):
            path = Path(variables_of(one, uuid))
            found.add((one.name, name, path.read_text() if path.exists() else "none"))
    files = [name for _, _, names in os.walk(home.machines) for name in names if "variables" in name]
    return frozenset(found), len(files)


@pytest.mark.parametrize(
    "scenario", [_take, _restore, _restore_none, _delete, _clone], ids=lambda one: one.__name__.strip("_")
)
def test_a_killed_change_leaves_the_old_or_the_new_variables(
    tmp_path: Path, scenario: Callable[[Home], object]
) -> None:
    home = find_home(tmp_path / "home")
    _build(home)
    check_old_or_new(home.folder, tmp_path / "kept", lambda: _look(home), lambda: scenario(home))
