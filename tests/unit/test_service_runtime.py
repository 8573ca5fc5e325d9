"""Parts of the supervisor that need no QEMU: states' files, the agent, the protocol, plans, launching."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.document import document_path
from drivebay.machines.model import (
    Attachment,
    BandwidthGroup,
    Controller,
    Firmware,
    Hardware,
    Machine,
    MachineState,
    Settings,
    Slot,
)
from drivebay.model import CacheMode
from drivebay.qemu.arguments import AGENT_SOCKET
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import DeviceType, MediaTree, Medium, MediumType
from drivebay.service.merging import consolidate
from drivebay.service.runtime import StartOptions, connect, is_running, start
from drivebay.service.runtime.agent import ask_agent
from drivebay.service.runtime.control import Control
from drivebay.service.runtime.plan import RunPlan, facts_of, identities, plan_run
from drivebay.service.runtime.presence import CONTROL_SOCKET, SupervisorLock, has_supervisor
from drivebay.service.runtime.record import record_state
from drivebay.service.runtime.restoring import state_to_restore
from drivebay.service.runtime.running import machine_status, running, wait_until_off
from drivebay.service.runtime.saved_state import (
    StateHeader,
    read_header,
    reading,
    state_name,
    write_header,
    writing,
)
from drivebay.service.runtime.values import attachment_from_json, attachment_to_json
from drivebay.service.runtime.work import Work

MIB = 1 << 20
LISTLESS = (
    b'{"file": "drivebay saved state", "version": 1, "machine_type": "", "accelerator": "", "qemu": "", '
    b'"disks": {"S": 1}}'
)
HEADER = StateHeader("pc-q35-7.2", "tcg", "7.2.22", {"SATA:0:0": ["/d.vdi", "x"]})


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="drivebay-") as name:  # a socket's path must be short
        yield Path(name)


def disk(folder: Path, name: str, parent: Medium | None = None, **fields: Any) -> Medium:
    path = folder / name
    if parent is None:
        drivebay.create(path, size=4 * MIB)
    else:
        drivebay.create(path, parent=parent.path)
    uuid = facts_of(str(path), "").uuid
    return Medium(
        uuid, str(path), "vdi", parent=None if parent is None else parent.uuid, size=4 * MIB, **fields
    )


def registered(home: Home, machine: Machine, *media: Medium) -> Machine:
    os.makedirs(machine.folder, exist_ok=True)
    with open_registry(home) as registry, registry.change() as change:
        for medium in media:
            change.put_medium(medium)
        store.save(change, machine)
    return machine


def machine_in(folder: Path, *attachments: Attachment, **fields: Any) -> Machine:
    controllers = (Controller("SATA", "IntelAhci", 30), Controller("IDE", "PIIX4", 2, host_io_cache=True))
    hardware = Hardware(
        controllers=controllers, attachments=attachments, bandwidth_groups=(BandwidthGroup("g"),)
    )
    return Machine(uuid4(), "m", str(folder / "machine"), hardware, **fields)


def test_states_are_named_by_their_time() -> None:
    assert state_name(datetime(2026, 1, 2, 3, 4, 5, 678, UTC)) == "2026-01-02T03-04-05-000678000Z.sav"


def test_a_state_comes_back_as_it_went(folder: Path) -> None:
    path, content = str(folder / "a.sav"), os.urandom(3 * MIB + 17)
    with writing(path) as (pipe, copier):
        with open(pipe, "wb") as writer:
            writer.write(content)
        copier.join()
        write_header(path, HEADER)
    with open(reading(path), "rb") as reader:
        assert reader.read() == content
    assert read_header(path) == HEADER


def test_a_state_that_cannot_be_written_leaves_no_file(folder: Path) -> None:
    path = folder / "a.sav"

    def fail() -> None:
        with writing(str(path)) as (pipe, _):
            os.close(pipe)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not path.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"file": "x"}', b"\0" * 100, b"[" * 100000, LISTLESS]
)
def test_other_files_are_no_states(folder: Path, content: bytes) -> None:
    path = folder / "a.sav"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="machine discard") as caught:
        read_header(str(path))
    assert caught.value.kind is ErrorKind.CORRUPT


def test_a_state_of_a_newer_drivebay_is_told_apart(folder: Path) -> None:
    path = folder / "a.sav"
    path.write_bytes(json.dumps({"file": "drivebay saved state", "version": 2}).encode())
    with pytest.raises(StorageError, match="newer drivebay"):
        read_header(str(path))


@pytest.mark.parametrize(("firmware", "memory", "told"), [("efi", 191, 1), ("efi", 192, 0), ("bios", 16, 0)])
def test_efi_with_little_memory_is_warned_of(folder: Path, firmware: str, memory: int, told: int) -> None:
    settings = Settings(firmware=Firmware(firmware), memory_mib=memory)
    machine = machine_in(folder)
    machine = replace(machine, hardware=replace(machine.hardware, settings=settings))
    warnings = plan_run(machine, MediaTree.of([]), "/run/m").warnings
    assert len(warnings) == told
    assert all("has 191;" in warning for warning in warnings)


def test_a_saved_machine_whose_disk_has_changed_does_not_resume(folder: Path) -> None:
    medium = disk(folder, "a.vdi")
    machine = machine_in(
        folder, Attachment(Slot("SATA"), medium=medium.uuid), state=MachineState.SAVED, state_file="a.sav"
    )
    os.makedirs(machine.folder)
    plan = plan_run(machine, MediaTree.of([medium]), "/run/m")
    path = Path(machine.folder, "a.sav")
    path.touch()
    write_header(str(path), StateHeader("q35", "tcg", "7.2", identities(plan.specs)))
    found = state_to_restore(machine, plan)
    assert found is not None
    assert found.path == str(path)
    with drivebay.open(medium.path, writable=True) as opened:
        opened.write(0, b"x")
        opened.flush()
    with pytest.raises(StorageError, match="disk at SATA:0:0 has changed") as caught:
        state_to_restore(machine, plan)
    assert caught.value.kind is ErrorKind.STATE


def test_a_plan_has_the_exact_chain_and_how_each_image_is_opened(folder: Path) -> None:
    base = disk(folder, "base.vdi", type=MediumType.IMMUTABLE)
    child = disk(folder, "child.vdi", base)
    iso = folder / "cd.iso"
    iso.write_bytes(bytes(MIB))
    cd = Medium(uuid4(), str(iso), "raw", DeviceType.DVD, MediumType.READONLY, size=MIB)
    machine = machine_in(
        folder,
        Attachment(Slot("SATA"), medium=child.uuid, bandwidth_group="g", discard=True),
        Attachment(Slot("IDE", 1, 1), DeviceType.DVD, cd.uuid),
        Attachment(Slot("IDE", 1, 0), DeviceType.DVD),
    )
    plan = plan_run(machine, MediaTree.of([base, child, cd]), "/run/m")
    first, second = plan.specs
    assert (first.export, first.paths, first.formats) == ("SATA:0:0", (child.path, base.path), ("vdi", "vdi"))
    assert (first.writable, first.cache, first.group, first.discard) == (True, CacheMode.DIRECT, "g", True)
    assert (second.export, second.writable, second.cache) == ("IDE:1:1", False, CacheMode.WRITEBACK)
    assert plan.drives[0].base == base.uuid  # a serial number does not change with snapshots
    assert [drive.export for drive in plan.drives] == ["SATA:0:0", "IDE:1:1", None]


def test_e62_a_cd_that_cannot_be_read_is_a_warning_and_a_disk_an_error(folder: Path) -> None:
    cd = Medium(uuid4(), str(folder / "none.iso"), "raw", DeviceType.DVD, MediumType.READONLY)
    hd = Medium(uuid4(), str(folder / "none.vdi"), "vdi")
    tree = MediaTree.of([cd, hd])
    plan = plan_run(machine_in(folder, Attachment(Slot("SATA"), DeviceType.DVD, cd.uuid)), tree, "/run/m")
    assert plan.specs == ()
    assert "none.iso" in plan.warnings[0]
    with pytest.raises(StorageError, match=r"none\.vdi"):
        plan_run(machine_in(folder, Attachment(Slot("SATA"), medium=hd.uuid)), tree, "/run/m")


def test_attachments_survive_the_protocol() -> None:
    attachment = Attachment(Slot("S", 1), DeviceType.DVD, UUID(int=5), temp_eject=True, serial="s")
    assert attachment_from_json(json.loads(json.dumps(attachment_to_json(attachment)))) == attachment


@pytest.mark.parametrize("value", [None, 3, [], {}, {"slot": 1}, {"slot": {}, "device": "x", "medium": None}])
def test_other_values_are_no_attachments(value: object) -> None:
    with pytest.raises(StorageError, match="no attachment"):
        attachment_from_json(value)


def test_a_control_socket_answers_hostile_lines(folder: Path) -> None:
    async def answer(message: dict[str, Any], _client: int) -> dict[str, Any]:
        if message.get("do") == "break":
            raise RuntimeError("a fault of ours")
        return {"did": message.get("do")}

    async def talk() -> list[dict[str, Any]]:
        control = Control(answer)
        await control.listen(str(folder / CONTROL_SOCKET))
        reader, writer = await asyncio.open_unix_connection(str(folder / CONTROL_SOCKET))
        writer.write(b'no json\n[]\n{"id": 1, "do": "break"}\n{"id": 2, "do": "x"}\n')
        answers = [json.loads(await reader.readline()) for _ in range(4)]
        writer.close()
        await control.close()
        return answers

    first, second, third, fourth = asyncio.run(talk())
    assert first["error"]["kind"] == second["error"]["kind"] == "invalid"
    assert "please report" in third["error"]["message"]
    assert fourth == {"id": 2, "ok": {"did": "x"}}


def test_the_agent_is_asked_after_old_answers_are_skipped(folder: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"return": 12}\n')  # what nobody waited for
        sync = json.loads(await reader.readline())
        writer.write(json.dumps({"return": sync["arguments"]["id"]}).encode() + b"\n")
        asked = json.loads(await reader.readline())["execute"]
        answer = {"return": 3} if asked == "guest-fsfreeze-freeze" else {"error": {"desc": "not now"}}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def talk() -> int:
        async with await asyncio.start_unix_server(serve, str(folder / AGENT_SOCKET)):
            frozen = await ask_agent(str(folder), "guest-fsfreeze-freeze")
            with pytest.raises(StorageError, match="not now"):
                await ask_agent(str(folder), "guest-fsfreeze-thaw")
        return int(frozen)

    assert asyncio.run(talk()) == 3


def test_without_an_agent_that_is_said(folder: Path) -> None:
    with pytest.raises(StorageError, match="qemu-guest-agent") as caught:
        asyncio.run(ask_agent(str(folder), "guest-fsfreeze-freeze"))
    assert caught.value.kind is ErrorKind.UNSUPPORTED


def test_a_supervisors_lock_tells_that_it_lives(folder: Path) -> None:
    lock = SupervisorLock(str(folder))
    assert lock.take()
    assert has_supervisor(str(folder))
    lock.close()
    assert not has_supervisor(str(folder))


def test_a_machine_whose_processes_are_gone_was_aborted(folder: Path) -> None:
    home = find_home(folder / "home")
    machine = registered(home, machine_in(folder, state=MachineState.RUNNING))
    assert not is_running(home, machine.uuid)
    assert machine_status(home, "m")["state"] == "aborted"
    with pytest.raises(StorageError, match="it is aborted; drivebay machine start"):
        running(home, "m")
    with pytest.raises(StorageError, match="does not run"):
        connect(home, machine.uuid)


@pytest.mark.parametrize(
    "ask", [lambda home: machine_status(home, "m")["state"], lambda home: wait_until_off(home, "m", 60)]
)
def test_a_machine_that_ends_while_it_is_asked_is_off(folder: Path, ask: Callable[[Home], str]) -> None:
    """Its supervisor lives, and answers no more."""
    home = find_home(folder / "home")
    machine = registered(home, machine_in(folder, state=MachineState.RUNNING))
    lock = SupervisorLock(home.run_folder(machine.uuid))
    assert lock.take()

    def end() -> None:
        record_state(home, machine.uuid, MachineState.POWERED_OFF)
        lock.close()

    ending = threading.Timer(0.3, end)
    ending.start()
    assert ask(home) == "powered-off"
    ending.join()


def test_a_machine_that_does_not_answer_and_lives_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivebay.service.runtime.running._ENDING", 0.1)
    monkeypatch.setattr("drivebay.service.runtime.client._CONNECT_TIMEOUT", 0.1)
    home = find_home(folder / "home")
    machine = registered(home, machine_in(folder, state=MachineState.RUNNING))
    lock = SupervisorLock(home.run_folder(machine.uuid))
    assert lock.take()
    with pytest.raises(StorageError, match="supervisor"):
        machine_status(home, "m")
    lock.close()


async def _watch(
    work: Work, restart: Callable[[], Awaitable[None]], ending: list[asyncio.Future[None]]
) -> None:
    """Watch a worker that is gone until ``restart`` has had it end, without trouble."""

    async def on_trouble() -> None:
        raise AssertionError(work.trouble)

    await work.adopt()
    await work.watch(restart, on_trouble)
    await ending[0]
    assert not await work.adopt()


def test_a_worker_is_started_again_once_nobody_has_its_images_in_use(folder: Path) -> None:
    """A merge that its end has interrupted has them for a moment: no reason to pause the guest."""
    work = Work(str(folder))
    calls: list[str] = []

    async def restart() -> None:
        calls.append("restart")
        if len(calls) < 3:
            raise StorageError(ErrorKind.IN_USE, "somebody has it")
        ending.append(asyncio.ensure_future(work.stop()))
        await asyncio.sleep(0)

    ending: list[asyncio.Future[None]] = []
    asyncio.run(_watch(work, restart, ending))
    assert calls == ["restart"] * 3
    assert work.restarts == 1


def test_a_worker_that_is_being_started_again_ends_with_its_machine(folder: Path) -> None:
    work = Work(str(folder))
    steps: list[str] = []

    async def restart() -> None:
        steps.append("begins")
        ending.append(asyncio.ensure_future(stop()))
        await asyncio.sleep(0.05)
        await work.start(RunPlan((), (), ()), {})
        steps.append("runs")

    async def stop() -> None:
        await work.stop()
        steps.append("stopped")

    ending: list[asyncio.Future[None]] = []
    asyncio.run(_watch(work, restart, ending))
    assert steps == ["begins", "runs", "stopped"]


@pytest.mark.parametrize("address", ["0.0.0.0:5901", "127.0.0.1:80", "127.0.0.1", "5901", "::1:5901"])
def test_vnc_is_for_loopback_only(folder: Path, address: str) -> None:
    with pytest.raises(StorageError, match="loopback"):
        start(find_home(folder), "m", StartOptions(vnc=address))


def test_a_start_that_fails_tells_why_and_leaves_nothing(folder: Path) -> None:
    home = find_home(folder / "home")
    missing = Medium(uuid4(), str(folder / "none.vdi"), "vdi")
    machine = registered(home, machine_in(folder, Attachment(Slot("SATA"), medium=missing.uuid)), missing)
    with pytest.raises(StorageError, match=r"none\.vdi") as caught:
        start(home, machine.uuid)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert not is_running(home, machine.uuid)


def test_a_qemu_that_ends_at_once_is_quoted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = folder / "bin" / "qemu-system-x86_64"
    qemu.parent.mkdir()
    version = 'case "$*" in *--version*) echo "QEMU emulator version 10.0.2"; exit 0;; esac'
    qemu.write_text(f"#!/bin/sh\n{version}\necho no such machine type >&2\nexit 1\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{qemu.parent}:{os.environ['PATH']}")
    home = find_home(folder / "home")
    base = disk(folder, "base.vdi")
    machine = registered(home, machine_in(folder, Attachment(Slot("SATA"), medium=base.uuid)), base)
    with pytest.raises(StorageError, match="no such machine type") as caught:
        start(home, machine.uuid)
    assert caught.value.kind is ErrorKind.STATE
    assert not is_running(home, machine.uuid)


def test_substitutes_are_asked_for_and_remembered(folder: Path) -> None:
    home = find_home(folder / "home")
    missing = Medium(uuid4(), str(folder / "none.vdi"), "vdi")
    made = machine_in(folder, Attachment(Slot("S"), medium=missing.uuid))
    hardware = Hardware(controllers=(Controller("S", "LsiLogic", 16),), attachments=made.hardware.attachments)
    machine = registered(home, Machine(made.uuid, "m", made.folder, hardware), missing)
    with pytest.raises(StorageError, match=r"none\.vdi"):  # but after that
        start(home, machine.uuid, StartOptions(substitute=True))
    with open_registry(home) as registry, registry.view() as view:
        (controller,) = store.load(view, machine.uuid).hardware.controllers
    assert controller.substitute == "LsiLogicSas"


def test_immutable_disks_forget_at_the_start(folder: Path) -> None:
    home = find_home(folder / "home")
    base = disk(folder, "base.vdi", type=MediumType.IMMUTABLE)
    child = disk(folder, "child.vdi", base, auto_reset=True)
    missing = Medium(uuid4(), str(folder / "none.vdi"), "vdi")
    with drivebay.open(child.path, writable=True) as opened:
        opened.write(0, b"infected")
        opened.flush()
    attachments = (
        Attachment(Slot("SATA"), medium=child.uuid),
        Attachment(Slot("SATA", 1), medium=missing.uuid),
    )
    machine = registered(home, machine_in(folder, *attachments), base, child, missing)
    said: list[str] = []
    with pytest.raises(StorageError, match=r"none\.vdi"):  # but after that
        start(home, machine.uuid, on_status=said.append)
    assert said[0].startswith("SATA:0:0: forgets")
    with drivebay.open(child.path) as opened:
        assert opened.read(0, 8) == bytes(8)
    assert facts_of(child.path, "").uuid == child.uuid
    assert sorted(each.name for each in folder.glob("*.vdi")) == ["base.vdi", "child.vdi"]


def test_with_an_immutable_disks_diff_goes_what_a_deleted_snapshot_left_to_it(folder: Path) -> None:
    """As if it had been merged into the diff, which forgets everything (4.2)."""
    home = find_home(folder / "home")
    base = disk(folder, "base.vdi", type=MediumType.IMMUTABLE)
    left = disk(folder, "left.vdi", base, merging=True)
    with drivebay.open(left.path, writable=True) as opened:
        opened.write(0, b"infected")
        opened.flush()
    child = disk(folder, "child.vdi", left, auto_reset=True)
    missing = Medium(uuid4(), str(folder / "none.vdi"), "vdi")
    attachments = (
        Attachment(Slot("SATA"), medium=child.uuid),
        Attachment(Slot("SATA", 1), medium=missing.uuid),
    )
    machine = registered(home, machine_in(folder, *attachments), base, left, child, missing)
    with pytest.raises(StorageError, match=r"none\.vdi"):  # but after that
        start(home, machine.uuid)
    with drivebay.open(child.path) as opened:
        assert opened.read(0, 8) == bytes(8)
    with open_registry(home) as registry, registry.view() as view:
        assert [one.uuid for one in view.tree.chain(child.uuid)] == [child.uuid, base.uuid]
    assert [one.gone.uuid for one in consolidate(home).merged] == [left.uuid]
    assert sorted(each.name for each in folder.glob("*.vdi")) == ["base.vdi", "child.vdi"]
    assert str(left.uuid) not in Path(document_path(machine)).read_text()
