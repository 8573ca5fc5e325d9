"""A process that dies at any point of a change leaves the old or the new state, and no orphan file."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drivebay.errors import StorageError
from drivebay.registry.database import Registry, open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import MediumType
from drivebay.service import deletion, media, moving
from support.killing import kill_everywhere

State = tuple[frozenset[tuple[str, str]], frozenset[str], int]
Scenario = Callable[[Registry, str], object]


def _create(registry: Registry, folder: str) -> object:
    return media.create_medium(registry, f"{folder}/new.vdi", parent="base.vdi")


def _create_split(registry: Registry, folder: str) -> object:
    return media.create_medium(registry, f"{folder}/s.vmdk", size="8M", variant="twoGbMaxExtentSparse")


def _create_bundle(registry: Registry, folder: str) -> object:
    return media.create_medium(registry, f"{folder}/p.hdd", size="8M", variant="bundle")


def _delete(registry: Registry, folder: str) -> object:
    return deletion.delete_medium(registry, f"{folder}/split.vmdk")


def _delete_now(registry: Registry, folder: str) -> object:
    return deletion.delete_medium(registry, f"{folder}/split.vmdk", now=True)


def _move(registry: Registry, folder: str) -> object:
    return moving.move_medium(registry, f"{folder}/split.vmdk", "renamed.vmdk")


def _move_parent(registry: Registry, folder: str) -> object:
    return moving.move_medium(registry, f"{folder}/base.vdi", f"{folder}/elsewhere")


def _set_type(registry: Registry, folder: str) -> object:
    return media.set_type(registry, f"{folder}/split.vmdk", MediumType.IMMUTABLE)


SCENARIOS = [_create, _create_split, _create_bundle, _delete, _delete_now, _move, _move_parent, _set_type]


def _build(home: Home, folder: str) -> None:
    os.makedirs(f"{folder}/elsewhere")
    with open_registry(home, durable=False) as registry:
        media.create_medium(registry, f"{folder}/base.vdi", size="8M", uuid=f"{1:032x}")
        media.create_medium(registry, f"{folder}/child.vdi", parent="base.vdi", uuid=f"{2:032x}")
        media.create_medium(
            registry,
            f"{folder}/split.vmdk",
            size="8M",
            variant="twoGbMaxExtentSparse",
            uuid=f"{3:032x}",
        )


def _look(home: Home, folder: str) -> State:
    """What is there after the next one has opened the registry: media, files, and rows left to do."""
    with open_registry(home, durable=False) as registry, registry.view() as view:
        found = frozenset(
            (os.path.relpath(one.path, folder), one.type.value) for one in view.tree.media.values()
        )
        left = view.connection.exec_driver_sql("SELECT count(*) FROM journal").scalar() or 0
    files = frozenset(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    )
    hidden = [name for place, names, _ in os.walk(folder) for name in names if name.startswith(".")]
    assert not hidden
    return found, files, left


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__.strip("_"))
def test_a_killed_change_leaves_the_old_or_the_new_state(tmp_path: Path, scenario: Scenario) -> None:
    home, folder = find_home(tmp_path / "home"), str(tmp_path / "images")
    kept = tmp_path / "kept"
    _build(home, folder)
    shutil.copytree(tmp_path / "home", kept / "home")
    shutil.copytree(folder, kept / "images")
    old = _look(home, folder)

    def prepare() -> None:
        for name in ("home", "images"):
            shutil.rmtree(tmp_path / name)
            shutil.copytree(kept / name, tmp_path / name)

    def run() -> None:
        with open_registry(home, durable=False) as registry:
            scenario(registry, folder)

    states = []
    for _ in kill_everywhere(run, prepare):
        states.append(_look(home, folder))
        _require_intact(home)
    new = states[-1]
    assert len(states) > 20
    assert new != old
    assert set(states) == {old, new}
    assert states[0] == old
    changes = sum(before != after for before, after in itertools.pairwise(states))
    assert changes == 1  # there is one moment at which the new state begins


def _require_intact(home: Home) -> None:
    """Each medium is where the registry has it, and each child finds its parent."""
    from drivebay.service.media_state import MediumState, media_info

    with open_registry(home, durable=False) as registry, registry.view() as view:
        for info in media_info(view):
            assert info.condition.state is MediumState.CREATED, info.condition.reason


def test_an_intent_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    home = find_home(tmp_path / "home")
    path = tmp_path / "file"
    with open_registry(home) as registry:
        registry.intend([str(path)])
        path.write_text("half made")
        with open_registry(home):
            assert path.exists()
    with open_registry(home):
        assert not path.exists()


def test_an_intent_that_exists_already_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("somebody's")
    with open_registry(find_home(tmp_path / "home")) as registry, pytest.raises(StorageError, match="exists"):
        registry.intend([str(path)])
    assert path.read_text() == "somebody's"
