"""EFI variables belong to a machine's states: snapshots, restores, clones and deletions treat them so."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.clone_mode import CloneMode
from drivebay.machines.efi_variables import NAME, variables_of
from drivebay.machines.model import Machine
from drivebay.qemu.firmware import efi_of, require_efi_kernel
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.service.clones import clone_machine
from drivebay.service.doctor import examine
from drivebay.service.machines.lifecycle import create_machine, rename_machine
from drivebay.service.machines.removal import remove_machine
from drivebay.service.machines.show import machine_info
from drivebay.service.snapshots import delete_snapshot, restore_snapshot, take_snapshot


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return find_home(tmp_path / "home")


@pytest.fixture
def machine(home: Home) -> Machine:
    """A machine with a snapshot from before its first start, and two later ones."""
    made = create_machine(home, "vm")
    take_snapshot(home, "vm", "never")
    for text in ("first", "second"):
        Path(variables_of(made)).write_text(text)
        made = _taken(home, text)
    Path(variables_of(made)).write_text("now")
    return made


def _taken(home: Home, name: str) -> Machine:
    take_snapshot(home, "vm", name)
    return machine_info(home, "vm").machine


def _texts(machine: Machine) -> dict[str, str]:
    """What the variables of each state hold, by its name."""
    states = [("", None), *((one.name, one.uuid) for one in machine.snapshots)]
    paths = {name: Path(variables_of(machine, uuid)) for name, uuid in states}
    return {name: path.read_text() for name, path in paths.items() if path.exists()}


def test_a_snapshot_keeps_what_a_restore_brings_back(home: Home, machine: Machine) -> None:
    kept = {"first": "first", "second": "second"}
    assert _texts(machine) == {"": "now", **kept}
    restore_snapshot(home, "vm", "first")
    assert _texts(machine) == {"": "first", **kept}
    restore_snapshot(home, "vm", "never")
    assert _texts(machine) == kept
    restore_snapshot(home, "vm", "second")
    assert _texts(machine) == {"": "second", **kept}
    with open_registry(home) as registry:
        assert examine(registry) == []


def test_what_belongs_to_a_deleted_snapshot_goes(home: Home, machine: Machine) -> None:
    delete_snapshot(home, "vm", "first")
    delete_snapshot(home, "vm", "never")
    assert _texts(machine) == {"": "now", "second": "second"}


def test_a_failure_leaves_nothing_behind(home: Home, machine: Machine) -> None:
    before = sorted(Path(machine.folder).rglob("*"))
    Path(variables_of(machine)).unlink()
    Path(variables_of(machine)).mkdir()  # can't be read, even by root
    with pytest.raises(StorageError, match="EFI variables") as caught:
        take_snapshot(home, "vm", "in vain")
    assert caught.value.path is not None
    assert sorted(Path(machine.folder).rglob("*")) == before


@pytest.mark.parametrize(
    ("mode", "snapshot", "expected"),
    [
        (CloneMode.MACHINE, None, {"": "now"}),
        (CloneMode.MACHINE, "first", {"": "first"}),
        (CloneMode.MACHINE, "never", {}),
        (CloneMode.MACHINE_AND_CHILDREN, "first", {"": "now", "first": "first", "second": "second"}),
        (CloneMode.ALL, None, {"": "now", "first": "first", "second": "second"}),
    ],
)
def test_a_clone_has_variables_of_its_own(
    home: Home, machine: Machine, mode: CloneMode, snapshot: str | None, expected: dict[str, str]
) -> None:
    clone = clone_machine(home, "vm", "twin", mode=mode, snapshot=snapshot).machine
    assert _texts(clone) == expected
    assert clone.folder != machine.folder


def test_a_linked_clone_has_those_of_its_snapshot(home: Home, machine: Machine) -> None:
    assert _texts(machine)[""] == "now"
    assert _texts(clone_machine(home, "vm", "twin", snapshot="second", linked=True).machine) == {"": "second"}


def test_they_go_where_the_machine_goes(home: Home, machine: Machine) -> None:
    renamed = rename_machine(home, "vm", "other")
    assert _texts(renamed) == {"": "now", "first": "first", "second": "second"}
    remove_machine(home, "other")
    assert not Path(renamed.folder).exists()
    assert not Path(machine.folder).exists()


def test_variables_of_another_firmware_are_refused(tmp_path: Path) -> None:
    pairs = []
    for name, size in (("large", 4), ("small", 2)):
        pairs.append((str(tmp_path / f"{name}-code"), str(tmp_path / f"{name}-variables")))
        for path in pairs[-1]:
            Path(path).write_bytes(bytes(size))
    assert efi_of(str(tmp_path), pairs).code == pairs[0][0]
    variables = tmp_path / NAME
    variables.write_bytes(b"xx")
    assert efi_of(str(tmp_path), pairs).code == pairs[1][0]
    variables.write_bytes(b"xxx")
    with pytest.raises(StorageError, match="firmware that is not installed") as caught:
        efi_of(str(tmp_path), pairs)
    assert (caught.value.kind, caught.value.path) == (ErrorKind.STATE, str(variables))


def test_variables_that_can_not_be_made(tmp_path: Path) -> None:
    pairs = [(str(tmp_path / "code"), str(tmp_path / "variables"))]
    for path in pairs[0]:
        Path(path).touch()
    with pytest.raises(StorageError, match="variables") as caught:
        efi_of(str(tmp_path / "missing"), pairs)
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF" + bytes(100),
        b"MZ",
        b"MZ".ljust(0x3C, b"\0") + b"\xff" * 4,
        bytes(0x3C) + b"\x40\0\0\0PE\0\0",
    ],
)
def test_a_kernel_without_an_efi_stub_is_refused(tmp_path: Path, content: bytes) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(content)
    with pytest.raises(StorageError, match="no EFI stub") as caught:
        require_efi_kernel(str(kernel))
    assert caught.value.kind is ErrorKind.UNSUPPORTED
    kernel.write_bytes(b"MZ".ljust(0x3C, b"\0") + b"\x40\0\0\0PE\0\0")
    require_efi_kernel(str(kernel))
    kernel.unlink()
    with pytest.raises(StorageError, match="kernel") as caught:
        require_efi_kernel(str(kernel))
    assert caught.value.kind is ErrorKind.NOT_FOUND
