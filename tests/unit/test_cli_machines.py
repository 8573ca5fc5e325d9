"""A session with machines, controllers, drives and bandwidth groups on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drivebay.registry.home import HOME_VARIABLE
from support.command import drivebay, drivebay_json, failure


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, beside a home of its own."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(*arguments: object) -> str:
    """What a command that must succeed prints."""
    done = drivebay(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def vm(name: str = "vm") -> Any:
    """A machine with a disk that is immutable, a CD and a floppy drive."""
    told("machine", "create", name, "--memory", 64)
    told("controller", "add", name, "SATA", "--kind", "ahci", "--ports", 2)
    told("controller", "add", name, "Floppy", "--kind", "I82078")
    told("create", "a.vdi", "--size", "1M")
    Path("cd.iso").write_bytes(bytes(4096))
    Path("fd.img").write_bytes(bytes(1474560))
    told("attach", name, "--medium", "a.vdi", "--mtype", "immutable", "--nonrotational", "--serial", "S1")
    told("attach", name, "--medium", "cd.iso", "--temp-eject")
    return drivebay_json("attach", name, "--medium", "fd.img", "--controller", "Floppy")


def test_a_machine_is_built_and_shown() -> None:
    assert vm()["slot"] == "Floppy:0:0"
    shown = told("machine", "show", "vm")
    for part in (
        "64 MiB, 1 CPU",
        "IntelAhci, 2 ports, bootable",
        "0:0 disk, nonrotational, serial S1",
        "a.vdi",
    ):
        assert part in shown
    assert "will be reset, because the machine has no snapshot" in shown
    assert "read-only" in shown
    facts = drivebay_json("machine", "show", "vm")
    assert [slot["slot"] for slot in facts["slots"]] == ["SATA:0:0", "SATA:1:0", "Floppy:0:0"]
    assert [one["active"] for one in facts["slots"][0]["chain"]] == [True, False]
    assert facts["slots"][0]["next_start"]["will_reset"]
    assert facts["faults"] == []


def test_machines_are_listed_edited_and_renamed() -> None:
    vm()
    edited = drivebay_json("machine", "edit", "vm", "--cpus", 2, "--boot", "disk, dvd", "--firmware", "efi")
    assert edited["hardware"]["settings"]["boot_order"] == ["disk", "dvd"]
    told("machine", "rename", "vm", "new")
    assert "powered-off" in told("machine", "list")
    assert [one["name"] for one in drivebay_json("machine", "list")] == ["new"]
    failure(drivebay("machine", "show", "vm"), 4)


def test_controllers_are_changed() -> None:
    vm()
    assert drivebay_json("controller", "edit", "vm", "SATA", "--ports", 8, "--host-io-cache")["ports"] == 8
    told("controller", "rename", "vm", "SATA", "disks")
    assert "detach" in failure(drivebay("controller", "remove", "vm", "disks"), 2)
    assert drivebay_json("controller", "remove", "vm", "disks", "--yes")["detached"] == [
        "disks:0:0",
        "disks:1:0",
    ]


def test_kinds_are_listed() -> None:
    rows = {row["name"]: row for row in drivebay_json("controller", "kinds")}
    assert rows["IntelAhci"]["ports"] == {"least": 1, "most": 30, "default": 30}
    assert rows["ICH6"]["qemu"] is None
    assert "none; closest: PIIX4, PIIX3" in told("controller", "kinds")


def test_media_come_and_go() -> None:
    vm()
    assert drivebay_json("eject", "vm", "--controller", "SATA")["medium"] is None
    told("attach", "vm", "--controller", "SATA", "--port", 1, "--medium", "cd.iso")
    assert (
        drivebay_json("attach", "vm", "--controller", "SATA", "--port", 1, "--medium", "empty")["medium"]
        is None
    )
    assert "detached SATA:1:0" in told(
        "attach", "vm", "--controller", "SATA", "--port", 1, "--medium", "none"
    )
    assert "its differencing image stays" in told("detach", "vm", "--controller", "SATA", "--port", 0)
    failure(drivebay("attach", "vm", "--medium", "nothing.vdi"), 4)


def test_bandwidth_groups() -> None:
    vm()
    assert drivebay_json("bandwidth", "add", "vm", "slow", "--limit", "8m") == {
        "name": "slow",
        "limit": 1000000,
    }
    told("attach", "vm", "--controller", "SATA", "--port", 0, "--bandwidth-group", "slow")
    failure(drivebay("bandwidth", "remove", "vm", "slow"), 7)
    assert "no limit" in told("bandwidth", "set", "vm", "slow", "--limit", "0")
    told("attach", "vm", "--controller", "SATA", "--port", 0, "--bandwidth-group", "")
    assert drivebay_json("bandwidth", "list", "vm")[0]["limit"] == 0
    told("bandwidth", "remove", "vm", "slow")
    assert "can't be negative" in failure(drivebay("bandwidth", "add", "vm", "x", "--limit", "-1"), 2)


def test_deleting_says_what_goes_and_asks() -> None:
    vm()
    message = failure(drivebay("machine", "delete", "vm"), 2)
    assert "delete machine vm" in message
    assert "Snapshots/{" in message
    assert "--yes" in message
    done = drivebay_json("machine", "delete", "vm", "--yes", "--now")
    assert len(done["media"]) == 1
    assert drivebay_json("machine", "list") == []
    assert not list(Path("home/machines").iterdir())


def test_errors_are_json_too() -> None:
    done = drivebay("machine", "discard", "vm", "--yes", "--json")
    assert '"kind": "not-found"' in failure(done, 4)
