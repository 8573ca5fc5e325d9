"""A process that dies at any point of a machine's change leaves the old or the new state, files included."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from drivebay.machines.document import document_path, from_document, from_text
from drivebay.machines.store import load_all
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import MediumType
from drivebay.service import media
from drivebay.service.machines import hardware, lifecycle
from drivebay.service.machines.drives import attach, detach
from drivebay.service.machines.removal import remove_machine
from drivebay.service.machines.request import AttachRequest, Place
from support.killing import check_old_or_new


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills, unlike power cuts, lose nothing that was written: no need to wait for the device."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(open_registry, "__kwdefaults__", {"durable": False, "timeout": 20.0})


State = tuple[object, frozenset[str]]


def _create(home: Home) -> object:
    return lifecycle.create_machine(home, "new")


def _attach(home: Home) -> object:
    return attach(home, "vm", AttachRequest(medium=os.path.join(home.machines, "vm/b.vdi")))


def _detach(home: Home) -> object:
    return detach(home, "vm", Place("SATA", 0))


def _rename(home: Home) -> object:
    return lifecycle.rename_machine(home, "vm", "other")


def _delete(home: Home) -> object:
    return remove_machine(home, "vm")


def _delete_now(home: Home) -> object:
    return remove_machine(home, "vm", now=True)


SCENARIOS = [_create, _attach, _detach, _rename, _delete, _delete_now]


def _build(home: Home) -> None:
    """A machine with a disk and its differencing image; another image waits."""
    lifecycle.create_machine(home, "vm")
    hardware.add_controller(home, "vm", "SATA", "AHCI")
    with open_registry(home, durable=False) as registry:
        for name in "ab":
            path = os.path.join(home.machines, f"vm/{name}.vdi")
            media.create_medium(registry, path, size="1M", type=MediumType.MULTIATTACH)
    attach(home, "vm", AttachRequest(medium=os.path.join(home.machines, "vm/a.vdi")))


def _look(home: Home) -> State:
    """Machines and media as the next one finds them, without UUIDs, which are new each time; and files."""
    with open_registry(home, durable=False) as registry, registry.view() as view:
        machines = load_all(view)
        paths = frozenset(_anonymous(one.path, home) for one in view.tree.media.values())
        assert all(os.path.exists(one.path) for one in view.tree.media.values())
        assert not view.connection.exec_driver_sql("SELECT count(*) FROM journal").scalar()
    for one in machines:
        text = Path(document_path(one)).read_text()
        assert from_document(from_text(text, one.folder), one.folder)[0] == one
    names = tuple((one.name, tuple(str(at.slot) for at in one.hardware.attachments)) for one in machines)
    return (names, paths), frozenset(_files(home))


def _files(home: Home) -> list[str]:
    found = [
        os.path.join(place, name)
        for top in (home.machines, home.trash)
        for place, _, names in os.walk(top)
        for name in names
    ]
    return [_anonymous(path, home) for path in found]


def _anonymous(path: str, home: Home) -> str:
    place, name = os.path.split(os.path.relpath(path, home.folder))
    place = "trash" if place.startswith("trash") else place
    return os.path.join(place, "{}" if "{" in name else name)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__.strip("_"))
def test_a_killed_change_leaves_the_old_or_the_new_state(
    tmp_path: Path, scenario: Callable[[Home], object]
) -> None:
    home = find_home(tmp_path / "home")
    _build(home)
    check_old_or_new(home.folder, tmp_path / "kept", lambda: _look(home), lambda: scenario(home))
