"""``drivebay snapshot`` from the command line: what it says, asks and does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drivebay.cli.app import app
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Slot
from drivebay.registry.medium import MediumType
from support.machines import medium, named
from support.real_lab import RealLab

SATA = Slot("SATA", 0)


@pytest.fixture
def lab(tmp_path: Path) -> RealLab:
    lab = RealLab(tmp_path)
    lab.add(medium("disk"))
    lab.attach(lab.machine("one"), SATA, named("disk"))
    return lab


def _run(lab: RealLab, *words: str) -> str:
    result = CliRunner().invoke(app, ["--home", lab.home.folder, "snapshot", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_machines_snapshots_from_the_first_to_the_last(lab: RealLab) -> None:
    lab.write(named("one"), SATA, 0, 1)
    taken = json.loads(_run(lab, "take", "one", "clean", "--json"))
    assert (taken["name"], taken["kind"], taken["online"]) == ("clean", "offline", False)
    lab.write(named("one"), SATA, 0, 2)
    _run(lab, "take", "one", "clean", "--unique", "number")
    drawn = _run(lab, "tree", "one")
    assert drawn.index(" clean ") < drawn.index(" clean 2 ") < drawn.index("* current state")
    assert taken["uuid"] in drawn
    listed = json.loads(_run(lab, "list", "one", "--json"))
    assert [(one["name"], one["current"]) for one in listed] == [("clean", False), ("clean 2", True)]
    assert str(named("disk")) in _run(lab, "show", "one", "clean", "--json")

    restored = json.loads(_run(lab, "restore", "one", "clean", "--yes", "--json"))
    assert len(restored["lost"]) == 1
    assert lab.shown(named("one"))[None] == {SATA: {0: 1}}
    _run(lab, "edit", "one", "clean 2", "--name", "infected", "--description", "kept to look at")
    assert "kept to look at" in _run(lab, "show", "one", "infected")

    deleted = json.loads(_run(lab, "delete", "one", "infected", "--yes", "--json"))
    assert len(deleted["removed"]) == 1
    deleted = json.loads(_run(lab, "delete", "one", "clean", "--yes", "--json"))
    assert [merge["target"] for merge in deleted["merges"]] == [lab.media[named("disk")].path]
    assert list(lab.media) == [named("disk")]
    assert lab.shown(named("one")) == {None: {SATA: {0: 1}}}
    assert "no snapshots" in _run(lab, "list", "one")


def test_what_would_be_lost_is_told_before(lab: RealLab) -> None:
    _run(lab, "take", "one", "clean")
    for words in (["restore", "one"], ["delete", "one", "clean"]):
        result = CliRunner().invoke(app, ["--home", lab.home.folder, "snapshot", *words])
        assert result.exit_code != 0
        assert "--yes" in str(result.exception or result.output)
    assert [one.name for one in lab.machines[named("one")].snapshots] == ["clean"]


def test_file_systems_are_not_frozen_for_a_snapshot_with_memory(lab: RealLab) -> None:
    with pytest.raises(StorageError, match="--no-state") as caught:
        _run(lab, "take", "one", "clean", "--freeze")
    assert caught.value.kind is ErrorKind.INVALID
    _run(lab, "take", "one", "clean", "--freeze", "--no-state")


def test_an_image_that_a_reset_will_forget_is_not_said_to_be_merged(tmp_path: Path) -> None:
    lab = RealLab(tmp_path)
    lab.add(medium("frozen", type=MediumType.IMMUTABLE))
    lab.attach(lab.machine("one"), SATA, named("frozen"))
    for name in ("first", "second"):
        _run(lab, "take", "one", name)
    before = lab.shown(named("one"))[None]
    kept = next(one for one in lab.machines[named("one")].snapshots if one.name == "second")
    held = kept.hardware.attachments[0].medium
    assert held is not None
    image = lab.media[held].path

    result = CliRunner().invoke(app, ["--home", lab.home.folder, "snapshot", "delete", "one", "second"])
    assert f"keep {image} until" in str(result.exception)
    deleted = json.loads(_run(lab, "delete", "one", "second", "--yes", "--json"))
    assert [(one["target"], one["forgotten"]) for one in deleted["merges"]] == [(image, True)]
    assert lab.shown(named("one"))[None] == before
    assert Path(image).exists()

    restored = json.loads(_run(lab, "restore", "one", "first", "--yes", "--json"))
    assert image in restored["lost"]
    assert not Path(image).exists()
    assert len(lab.media) == 3  # the base, what the snapshot holds, and the new diff
