"""The supervisor of one running machine: it keeps the worker and QEMU, and tells the registry of them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Machine, MachineState
from drivebay.qemu.arguments import Launch, machine_arguments
from drivebay.qemu.emulator import accelerator, find_qemu
from drivebay.qemu.firmware import efi_of, require_efi_kernel
from drivebay.registry.home import Home
from drivebay.service.runtime import record
from drivebay.service.runtime.commands import Commands
from drivebay.service.runtime.control import Control
from drivebay.service.runtime.drives import Drives
from drivebay.service.runtime.freezing import Freezing
from drivebay.service.runtime.guest import forget_guest, with_guest
from drivebay.service.runtime.hypervisor import Hypervisor
from drivebay.service.runtime.plan import RunPlan
from drivebay.service.runtime.presence import CONTROL_SOCKET, SupervisorLock, qemu_pid
from drivebay.service.runtime.restoring import SavedState, add_identities, restore_state, state_to_restore
from drivebay.service.runtime.saved_state import StateHeader
from drivebay.service.runtime.tidying import Tidying
from drivebay.service.runtime.work import Work

_log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]


class Supervisor:
    """What the parts of a supervisor share; `run` is its life."""

    def __init__(self, home: Home, uuid: UUID, options: Mapping[str, Any]) -> None:
        self.home = home
        self.uuid = uuid
        self.run_folder = home.run_folder(uuid)
        self.options = options
        self.work = Work(self.run_folder)
        self.freezing = Freezing(self.run_folder)
        self._tidying = Tidying(home, uuid)
        self.machine: Machine
        self.plan: RunPlan
        self.hypervisor: Hypervisor
        self.drives: Drives
        self.accelerator: str = accelerator()
        self.reason = ""  # why the guest is paused, if that was not asked for
        self.saved: SavedState | None = None
        self.outcome = MachineState.ABORTED
        self.finished = asyncio.Event()
        self.since = time.time()
        self._lock = SupervisorLock(self.run_folder)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, report: Report) -> None:
        """Start the machine, or adopt it; then supervise it until it has ended. Raises StorageError."""
        if not self._lock.take():
            raise StorageError(
                ErrorKind.IN_USE, "this machine runs already, or is being started", operation="start"
            )
        control = Control(Commands(self).answer, self.freezing.client_gone)
        try:
            await self._begin()
            await control.listen(os.path.join(self.run_folder, CONTROL_SOCKET))
            report(self.facts())
            await self._tidying.begin()
            await self._supervise()
        finally:
            await control.close()
            self._lock.close()

    def facts(self) -> dict[str, Any]:
        """What is said of a machine that has just been started."""
        return {
            "name": self.machine.name,
            "uuid": str(self.machine.uuid),
            "accelerator": self.accelerator,
            "pid": self.hypervisor.pid,
            "warnings": list(self.plan.warnings),
            "run_folder": self.run_folder,
        }

    async def record(self, state: MachineState, state_file: str = "") -> None:
        """Tell the registry in which state the machine is."""
        self.machine = await asyncio.to_thread(record.record_state, self.home, self.uuid, state, state_file)

    async def _begin(self) -> None:
        pid = qemu_pid(self.run_folder)
        worker_lives = pid is not None and await self.work.adopt()
        await self.read_plan(served=worker_lives)
        if pid is not None:
            await self._adopt(pid, worker_lives=worker_lives)
        elif self.options.get("adopt"):
            raise StorageError(ErrorKind.STATE, "this machine does not run any more", operation="adopt")
        else:
            await self._start()

    async def read_plan(self, *, served: bool = False) -> None:
        """Read from the registry what the machine needs now."""
        self.machine, self.plan = await asyncio.to_thread(
            record.read_machine, self.home, self.uuid, self.run_folder, served=served
        )

    async def _adopt(self, pid: int, *, worker_lives: bool) -> None:
        """The supervisor before this one died; its machine did not."""
        _log.info("adopting QEMU, process %d", pid)
        self.hypervisor = Hypervisor(self.run_folder, pid)
        await self.hypervisor.connect()
        self.drives = Drives(self.hypervisor, self.work, self.machine, self.run_folder)
        self.reason = await self.drives.io_error()
        self.freezing.take_over()
        if not worker_lives:
            await self.start_worker()

    async def _start(self) -> None:
        state = state_to_restore(self.machine, self.plan)
        command = self._command(state.header if state else None)
        await self.freezing.close()
        await self.start_worker()
        try:
            self.hypervisor = Hypervisor.start(command, self.run_folder)
            await self._connect_and_go(state.path if state else None)
        except BaseException:
            await self.work.stop()
            raise
        finally:
            forget_guest(self.run_folder)
        await self.record(MachineState.RUNNING)

    async def _connect_and_go(self, state_path: str | None) -> None:
        try:
            await self.hypervisor.connect()
            self.drives = Drives(self.hypervisor, self.work, self.machine, self.run_folder)
            if state_path:
                await restore_state(self.hypervisor, state_path)
            await self.hypervisor.execute("cont")
        except BaseException:
            await self.hypervisor.quit()
            raise

    def _command(self, state: StateHeader | None) -> list[str]:
        settings = self.machine.hardware.settings
        launch = Launch(
            self.run_folder,
            program=find_qemu(),
            accelerator=self.accelerator,
            efi=efi_of(self.machine.folder) if settings.firmware.value == "efi" else None,
            vnc=str(self.options.get("vnc", "")),
        )
        if state:
            self.accelerator = state.accelerator
            launch = launch.for_state(state.machine_type, state.accelerator)
        machine = with_guest(self.machine, self.plan.drives, self.run_folder)
        if launch.efi and machine.hardware.settings.kernel:
            require_efi_kernel(machine.hardware.settings.kernel)
        return machine_arguments(machine, self.plan.drives, launch)

    async def start_worker(self) -> None:
        """Start a worker with the chains that the registry says now."""
        groups = {group.name: group.limit for group in self.machine.hardware.bandwidth_groups}
        await self.work.start(self.plan, groups)

    async def _restart_worker(self) -> None:
        _log.warning("the worker has ended; starting another")
        await self.read_plan()
        await self.start_worker()
        if self.reason.startswith("worker: "):
            self.reason = ""
            await self.hypervisor.execute("cont")

    async def _without_worker(self) -> None:
        """No worker can be had: the guest waits, rather than see its disks fail."""
        self.reason = f"worker: {self.work.trouble}"
        _log.error("no worker: %s", self.work.trouble)
        await self.hypervisor.execute("stop")

    async def _supervise(self) -> None:
        tasks = [
            asyncio.ensure_future(self.hypervisor.follow(self._on_event)),
            asyncio.ensure_future(self.work.watch(self._restart_worker, self._without_worker)),
        ]
        await self.hypervisor.ended.wait()
        await asyncio.wait(tasks[:1], timeout=1)  # its last event may still be on its way
        await self._end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        """QEMU has ended: everything is flushed and closed, then the registry is told."""
        _log.info("QEMU has ended%s", "" if self.hypervisor.powered_off else " by itself")
        await self.hypervisor.close()
        await self.freezing.close()
        await self._tidying.end()
        await self.work.stop()
        if self.saved:  # and recorded as such; flushed and closed, the images stay as they are
            self.outcome = MachineState.SAVED
            await self.read_plan()
            await add_identities(self.saved, self.plan)
        else:
            if self.hypervisor.powered_off:
                self.outcome = MachineState.POWERED_OFF
            await self.record(self.outcome)
        self._lock.close()  # whoever is told that it has ended may start it again at once
        self.finished.set()

    async def _on_event(self, event: dict[str, Any]) -> None:
        name, data = event["event"], event.get("data", {})
        if name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            self.reason = self.drives.describe_error(data)
            _log.warning("the guest is paused: %s", self.reason)
        elif name == "RESUME":
            self.reason = ""
        elif name == "DEVICE_TRAY_MOVED" and data.get("tray-open"):
            # Not here: it waits for other events.
            self._later(self._tray_opened(str(data["id"])))
        elif name == "DEVICE_DELETED":
            self.drives.note_deleted(str(data.get("device", "")))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tray_opened(self, device: str) -> None:
        """By the guest, unless a command of ours is at it."""
        slot = self.drives.slot_of(device)
        if slot is None or not await self.drives.is_ejected(slot):
            return
        _log.info("the guest has ejected the medium in %s", slot)
        attachment = self.drives.attachment(slot)
        if not attachment.temp_eject:
            await self.drives.empty(slot)
        self.machine = await asyncio.to_thread(record.record_eject, self.home, self.uuid, slot)
        self.drives.machine = self.machine
