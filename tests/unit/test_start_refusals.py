"""What keeps a machine from starting, and a guest's tray shut: E16, E62, E63 of the specification."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from drivebay.chain import create_image
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.model import Attachment, Controller, Hardware, Machine, MachineState, Slot
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import DeviceType, Medium
from drivebay.service.runtime import is_running, start
from drivebay.service.runtime.drives import Drives
from drivebay.service.runtime.hypervisor import Hypervisor
from drivebay.service.runtime.plan import facts_of, plan_run
from drivebay.service.runtime.work import Work
from drivebay.service.worker import DiskSpec
from support.nobody import run_as_nobody
from support.workers import running

MIB = 1 << 20
CONTROLLERS = (Controller("SATA", "IntelAhci", 4),)
OPEN = """
from drivebay.errors import StorageError
from drivebay.service.worker import DiskSpec
from drivebay.service.worker.opening import open_disk
"""
TRY = """
try:
    open_disk(DiskSpec("disk", (sys.argv[1],), writable=True))
except StorageError as error:
    print(error.kind.name, error)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="drivebay-") as name:  # a socket's path must be short
        Path(name).chmod(0o755)
        yield Path(name)


def _machine_with_a_disk(folder: Path) -> tuple[Home, Machine, Path]:
    home, path = find_home(folder / "home"), folder / "disk.vdi"
    create_image(str(path), size=4 * MIB)
    medium = Medium(facts_of(str(path), "").uuid, str(path), "vdi", size=4 * MIB)
    machine = _machine(folder, Attachment(Slot("SATA"), medium=medium.uuid))
    os.makedirs(machine.folder)
    with open_registry(home) as registry, registry.change() as change:
        change.put_medium(medium)
        store.save(change, machine)
    return home, machine, path


def _machine(folder: Path, *attachments: Attachment) -> Machine:
    return Machine(
        uuid4(), "m", str(folder / "m"), Hardware(controllers=CONTROLLERS, attachments=attachments)
    )


def _is_off(home: Home, uuid: UUID) -> bool:
    with open_registry(home) as registry, registry.view() as view:
        return store.load(view, uuid).state is MachineState.POWERED_OFF and not is_running(home, uuid)


def test_e62_a_disk_that_another_machine_holds(folder: Path) -> None:
    """The start is refused, and who holds the disk is named."""
    home, machine, path = _machine_with_a_disk(folder)
    with running([DiskSpec("disk", (str(path),), writable=True)]) as worker:
        with pytest.raises(
            StorageError, match=rf"disk\.vdi: the image is in use: process {worker.pid} "
        ) as told:
            start(home, machine.uuid)
        assert told.value.kind is ErrorKind.IN_USE
        assert _is_off(home, machine.uuid)


def test_e63_a_disk_that_may_only_be_read(folder: Path) -> None:
    """It is not served read-only in secret: opening it for the machine fails, and tells why."""
    home, machine, path = _machine_with_a_disk(folder)
    path.chmod(0o444)
    with open_registry(home) as registry, registry.view() as view:
        (spec,) = plan_run(machine, view.tree, str(folder)).specs
    assert spec.writable
    done = run_as_nobody(OPEN, TRY, path)
    assert done.stdout.startswith("READ_ONLY "), done
    assert "disk.vdi: cannot open for writing: Permission denied; check the permissions" in done.stdout


class _Qemu:
    """A monitor whose guest lets its tray go, or doesn't."""

    def __init__(self, device: str, *, lets_go: bool) -> None:
        self.asked: list[str] = []
        self._device = device
        self._lets_go = lets_go
        self._open = False

    async def execute(self, command: str, **arguments: Any) -> Any:
        self.asked.append(command)
        if command == "blockdev-open-tray":
            self._open = self._lets_go or arguments["force"]
        return [{"qdev": self._device, "tray_open": self._open}] if command == "query-block" else {}


class _Nothing:
    """A worker that serves nothing."""

    async def ask(self, _question: object) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(("lets_go", "force"), [(False, False), (True, False), (False, True)])
def test_e16_a_tray_that_the_guest_has_locked(folder: Path, lets_go: bool, force: bool) -> None:
    slot = Slot("SATA", 1)
    machine = _machine(folder, Attachment(slot, DeviceType.DVD))
    qemu = _Qemu("dev-0-1-0", lets_go=lets_go)
    drives = Drives(cast("Hypervisor", qemu), cast("Work", _Nothing()), machine, str(folder))
    if lets_go or force:
        asyncio.run(drives.change(slot, None, force=force))
        assert "blockdev-remove-medium" in qemu.asked
        return
    with pytest.raises(StorageError, match=r"locked the tray.*--force") as refused:
        asyncio.run(drives.change(slot, None, force=False))
    assert refused.value.kind is ErrorKind.IN_USE
    assert "blockdev-remove-medium" not in qemu.asked
