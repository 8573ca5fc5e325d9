"""The commands about media, as a user meets them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from drivebay.cli.run import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIVEBAY_HOME", str(tmp_path / "home"))
    return tmp_path


def _run(*arguments: str) -> None:
    assert run(["medium", *arguments]) == 0


def _json(capsys: Capture, *arguments: str) -> Any:
    capsys.readouterr()
    _run(*arguments, "--json")
    return json.loads(capsys.readouterr().out)


def _trees(home: Path) -> tuple[str, str]:
    base, child = str(home / "base.vdi"), str(home / "child.vdi")
    _run("create", base, "--size", "8M", "--type", "immutable", "--comment", "the base")
    _run("create", child, "--parent", base, "--auto-reset")
    return base, child


def test_a_tree_is_drawn_as_one(home: Path, capsys: Capture) -> None:
    base, child = _trees(home)
    capsys.readouterr()
    _run("tree")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(base)
    assert "read-only" in first
    assert "on disk" in first
    assert second.startswith(f"└── {child}")
    assert "diff of immutable, auto-reset" in second


def test_json_tells_all_of_it(home: Path, capsys: Capture) -> None:
    base, child = _trees(home)
    (tree,) = _json(capsys, "tree")
    assert (tree["path"], tree["description"], tree["state"]) == (base, "the base", "created")
    assert [one["path"] for one in tree["children"]] == [child]
    assert 0 < tree["disk_usage"] < tree["file_size"]
    assert _json(capsys, "show", "child.vdi")["parent"] == tree["uuid"]
    assert [one["path"] for one in _json(capsys, "list")] == [base, child]


def test_nothing_is_deleted_where_nobody_can_be_asked(home: Path, capsys: Capture) -> None:
    _, child = _trees(home)
    assert run(["medium", "delete", child]) == 2
    message = capsys.readouterr().err
    assert "--yes" in message
    assert child in message
    assert os.path.exists(child)
    _run("delete", child, "--yes")
    assert not os.path.exists(child)
    (entry,) = _json(capsys, "list", "--trash")
    assert entry["path"] == child
    _run("undelete", entry["id"])
    assert os.path.exists(child)
    _run("delete", child, "--yes")
    _run("empty-trash", "--older-than", "1", "--yes")
    assert _json(capsys, "list", "--trash")
    _run("empty-trash", "--yes")
    assert not _json(capsys, "list", "--trash")


def test_settings_and_places_change(home: Path, capsys: Capture) -> None:
    base, child = _trees(home)
    (home / "far").mkdir()
    assert _json(capsys, "set", child, "--no-auto-reset", "--description", "text")["description"] == "text"
    assert not _json(capsys, "show", child)["auto_reset"]
    assert _json(capsys, "set-type", base, "multiattach")["type"] == "multiattach"
    moved = _json(capsys, "move", base, str(home / "far"))["path"]
    assert moved == str(home / "far" / "base.vdi")
    os.rename(moved, base)
    assert _json(capsys, "relink", "base.vdi", base)["path"] == base
    assert run(["medium", "close", base]) == 7
    _run("close", child)
    _run("close", base)
    assert _json(capsys, "add", child)["parents"][0]["path"] == base


def test_an_empty_registry_says_how_to_begin(capsys: Capture) -> None:
    _run("list")
    assert "drivebay medium create" in capsys.readouterr().out
