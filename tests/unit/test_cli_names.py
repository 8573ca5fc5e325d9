"""Names as people give them: they are shown as they are, or refused with a reason."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
from pathlib import Path

import pytest

from drivebay.cli import running
from drivebay.registry.home import HOME_VARIABLE
from support.command import drivebay, drivebay_json, failure


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, beside a home of its own."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home dir ü"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_are_no_markup() -> None:
    name, controller, snapshot = "[bold]vm :smile:", "a:b: :x:", "[red]s[/] :b:"
    assert name in drivebay("machine", "create", name, "--memory", 64).stdout
    assert controller in drivebay("controller", "add", name, controller, "--kind", "NVMe").stdout
    assert snapshot in drivebay("snapshot", "take", name, snapshot).stdout
    assert snapshot in drivebay("snapshot", "tree", name).stdout
    shown = drivebay("machine", "show", name).stdout
    assert name in shown
    assert controller in shown
    assert drivebay_json("machine", "list")[0]["name"] == name


def test_a_long_path_is_shown_whole(folder: Path) -> None:
    image = folder / ("long " * 30) / "disk.vdi"
    image.parent.mkdir()
    assert drivebay("medium", "create", image, "--size", "1M").returncode == 0
    for words in (("info", image), ("medium", "show", image), ("medium", "list"), ("medium", "tree")):
        assert str(image) in drivebay(*words).stdout
    disk = {"read_bytes": 1 << 40, "written_bytes": 1 << 40, "errors": 0, "paths": [str(image)]}
    status = {"state": "running", "pid": 1, "accelerator": "tcg", "seconds": 60, "reason": "", "vnc": ""}
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        running.show({**status, "name": "vm", "worker_trouble": "", "serial": "", "disks": {"S:0:0": disk}})
    assert str(image) in shown.getvalue()


@pytest.mark.parametrize("command", [("medium", "create"), ("create",)])
def test_a_name_that_is_no_text_is_made_but_not_registered(command: tuple[str, ...]) -> None:
    name = os.fsdecode(b"bad\xff.vdi")
    done = drivebay(*command, name, "--size", "1M")
    if command == ("create",):
        assert done.returncode == 0
        done = drivebay("medium", "add", name)
    assert done.returncode == 2
    assert "no Unicode text" in done.stderr
    assert drivebay_json("medium", "list") == []
    assert os.path.exists(name) == (command == ("create",))


def test_a_machine_in_a_folder_whose_name_is_no_text() -> None:
    place = os.fsdecode(b"bad\xff")
    done = drivebay("machine", "create", "vm", "--folder", place)
    assert done.returncode == 2
    assert "no Unicode text" in done.stderr
    assert not os.path.lexists(place)


def test_a_remedy_can_be_typed_as_it_is_told(folder: Path) -> None:
    drivebay("medium", "create", "my disk.vdi", "--size", "1M")
    (folder / "my disk.vdi").rename(folder / "my other {disk}.vdi")
    done = drivebay("doctor", "--json")
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert drivebay(*shlex.split(finding["remedy"])[1:]).returncode == 0
    assert drivebay("doctor").returncode == 0


def test_a_machine_s_name_that_is_taken_is_named_so() -> None:
    assert drivebay("machine", "create", "vm", "--memory", 64).returncode == 0
    again = failure(drivebay("machine", "create", "vm", "--memory", 64), 7)
    assert "there is a machine called 'vm' already" in again
    assert drivebay("machine", "create", "other", "--memory", 64).returncode == 0
    renamed = failure(drivebay("machine", "rename", "other", "vm"), 7)
    assert "there is a machine called 'vm' already" in renamed
