"""The drives of a running machine: media that change, devices that come and go."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Attachment, Machine, Slot
from drivebay.qemu.devices import (
    Names,
    controller_of,
    drive_devices,
    is_hot_pluggable,
    names_of,
    node,
)
from drivebay.qemu.drive import Drive
from drivebay.registry.medium import DeviceType
from drivebay.service.runtime.hypervisor import Hypervisor, try_execute
from drivebay.service.runtime.plan import drive_of
from drivebay.service.runtime.work import Work
from drivebay.service.worker import DiskSpec

_UNPLUG_TIMEOUT = 15.0  # seconds that a guest gets to let a device go


class Drives:
    """What is in the machine's slots, in QEMU and the worker at once. One change at a time."""

    def __init__(self, hypervisor: Hypervisor, work: Work, machine: Machine, run_folder: str) -> None:
        self.machine = machine
        self._hypervisor = hypervisor
        self._work = work
        self._run_folder = run_folder
        self._lock = asyncio.Lock()
        self._deleted: dict[str, asyncio.Event] = {}

    def attachment(self, slot: Slot) -> Attachment:
        """The attachment at ``slot``. Raises StorageError (NOT_FOUND)."""
        for each in self.machine.hardware.attachments:
            if each.slot == slot:
                return each
        raise StorageError(
            ErrorKind.NOT_FOUND,
            f"the running machine has no drive at {slot}; drivebay machine show lists its drives",
            operation="change a drive",
        )

    async def change(self, slot: Slot, spec: DiskSpec | None, *, force: bool) -> None:
        """Put another medium into a drive, or none; on a failure the old one is back."""
        attachment = self.attachment(slot)
        if attachment.device is DeviceType.DISK:
            raise StorageError(
                ErrorKind.STATE,
                f"the disk at {slot} is no removable medium; detach it, and attach another (on a controller "
                "that can hot-plug, or with the machine off)",
                operation="change a medium",
            )
        async with self._lock:
            names = self._names(slot)
            await self._open_tray(slot, names, force=force)
            try:
                await self._exchange(attachment, names, spec)
            finally:
                await try_execute(self._hypervisor, "blockdev-close-tray", id=names.device)

    async def empty(self, slot: Slot) -> None:
        """Take away a medium that the guest has ejected."""
        async with self._lock:
            await self._take_out(slot, self._names(slot))

    async def is_ejected(self, slot: Slot) -> bool:
        """Whether a drive's tray is open with the medium still in it: the guest has done that."""
        async with self._lock:
            block = await self._block(self._names(slot))
        return bool(block.get("tray_open")) and "inserted" in block

    async def plug(self, attachment: Attachment, spec: DiskSpec | None) -> None:
        """Give the guest a new drive. Raises StorageError (STATE) where it can't come now (E7)."""
        slot = attachment.slot
        controller = controller_of(self.machine.hardware, slot)
        if not is_hot_pluggable(controller):
            raise _cannot_plug(slot, controller.substitute or controller.kind)
        drive = await asyncio.to_thread(drive_of, attachment, spec, self._run_folder)
        async with self._lock:
            names = self._names(slot)
            if spec is not None:
                await self._serve(spec, names, drive)
            try:
                await self._add_devices(drive)
            except StorageError:
                await self._unserve(slot, names)
                raise
        attachments = (*self.machine.hardware.attachments, attachment)
        self.machine = replace(self.machine, hardware=replace(self.machine.hardware, attachments=attachments))

    async def unplug(self, slot: Slot, *, force: bool) -> None:
        """Take a drive away. Raises StorageError: STATE where it can't go (E7), UNSUPPORTED for E8."""
        attachment = self.attachment(slot)
        controller = controller_of(self.machine.hardware, slot)
        if not is_hot_pluggable(controller):
            raise _cannot_plug(slot, controller.substitute or controller.kind)
        if not (attachment.hotpluggable or force):
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"the drive at {slot} is not marked hot-pluggable, so the guest may not expect this; use "
                "--force, or detach it while the machine is off",
                operation="detach",
            )
        async with self._lock:
            names = self._names(slot)
            await self._delete_device(slot, attachment)
            await self._unserve(slot, names)
        attachments = tuple(each for each in self.machine.hardware.attachments if each.slot != slot)
        self.machine = replace(self.machine, hardware=replace(self.machine.hardware, attachments=attachments))

    def slot_of(self, device: str) -> Slot | None:
        """The slot of a device or block node of QEMU, by its id or path."""
        wanted = device.rpartition("/")[2]
        for each in self.machine.hardware.attachments:
            names = self._names(each.slot)
            if wanted in (names.device, names.node):
                return each.slot
        return None

    def describe_error(self, data: dict[str, Any]) -> str:
        """Why QEMU has stopped the guest, and what to do."""
        slot = self.slot_of(str(data.get("node-name", ""))) or data.get("node-name")
        if data.get("nospace"):
            return (
                f"no space left on the host for the disk at {slot}: free some, then drivebay machine resume"
            )
        return f"{data.get('reason', 'I/O error')} at {slot}: mend that, then drivebay machine resume"

    async def io_error(self) -> str:
        """Why QEMU had stopped the guest before anybody watched; "" if it had not."""
        if await self._hypervisor.status() != "io-error":
            return ""
        for block in await self._hypervisor.execute("query-block"):
            status = block.get("io-status", "ok")
            if status != "ok":
                node_name = self._node_of(str(block.get("qdev", "")))
                return self.describe_error({"node-name": node_name, "nospace": status == "nospace"})
        return self.describe_error({})

    def _node_of(self, device: str) -> str:
        slot = self.slot_of(device)
        return device if slot is None else self._names(slot).node

    def note_deleted(self, device: str) -> None:
        """QEMU says that a device has gone."""
        if device in self._deleted:
            self._deleted[device].set()

    def _names(self, slot: Slot) -> Names:
        return names_of(self.machine.hardware, slot)

    async def _block(self, names: Names) -> dict[str, Any]:
        """What QEMU says of a drive."""
        for block in await self._hypervisor.execute("query-block"):
            if names.device in str(block.get("qdev", "")).split("/"):
                return dict(block)
        return {}

    async def _open_tray(self, slot: Slot, names: Names, *, force: bool) -> None:
        """Asks the guest where it holds the tray; ``force`` does not."""
        await try_execute(self._hypervisor, "blockdev-open-tray", id=names.device, force=force)
        block = await self._block(names)
        if block.get("tray_open") is False:
            raise StorageError(
                ErrorKind.IN_USE,
                f"the guest has locked the tray of the drive at {slot} (it was asked to let go just now); "
                "unmount the medium in the guest and try again, or use --force",
                operation="change a medium",
            )

    async def _exchange(self, attachment: Attachment, names: Names, spec: DiskSpec | None) -> None:
        slot = attachment.slot
        old = await self._take_out(slot, names)
        if spec is None:
            return
        try:
            await self._put_in(attachment, names, spec)
        except StorageError:
            if old is not None:
                await self._put_in(attachment, names, old)
            raise

    async def _take_out(self, slot: Slot, names: Names) -> DiskSpec | None:
        """Take the medium out; what it was."""
        await self._hypervisor.execute("blockdev-remove-medium", id=names.device)
        status = (await self._work.ask(lambda worker: worker.status())).get(str(slot))
        await self._unserve(slot, names)
        if status is None:
            return None
        return DiskSpec(str(slot), tuple(status["paths"]), writable=bool(status.get("writable", False)))

    async def _put_in(self, attachment: Attachment, names: Names, spec: DiskSpec) -> None:
        drive = await asyncio.to_thread(drive_of, attachment, spec, self._run_folder)
        await self._serve(spec, names, drive)
        try:
            await self._hypervisor.execute("blockdev-insert-medium", id=names.device, node_name=names.node)
        except StorageError:
            await self._unserve(attachment.slot, names)
            raise

    async def _serve(self, spec: DiskSpec, names: Names, drive: Drive) -> None:
        await self._work.ask(lambda worker: worker.open(spec))
        try:
            await self._hypervisor.monitor.execute("blockdev-add", node(names, drive))
        except StorageError:
            await self._work.ask(lambda worker: worker.close_disk(spec.export))
            raise

    async def _unserve(self, slot: Slot, names: Names) -> None:
        """As far as it is served."""
        await try_execute(self._hypervisor, "blockdev-del", node_name=names.node)
        if str(slot) in await self._work.ask(lambda worker: worker.status()):
            await self._work.ask(lambda worker: worker.close_disk(str(slot)))

    async def _add_devices(self, drive: Drive) -> None:
        devices = drive_devices(self.machine.hardware, drive)
        for device in devices:
            await self._hypervisor.monitor.execute("device_add", device)
        for carrier in devices[:-1]:  # what is added while the guest runs waits for its drive
            await self._hypervisor.execute(
                "qom-set", path=str(carrier["id"]), property="attached", value=True
            )

    async def _delete_device(self, slot: Slot, attachment: Attachment) -> None:
        devices = drive_devices(self.machine.hardware, Drive(attachment))
        device = str(devices[0]["id"])  # what carries a drive takes it along
        gone = self._deleted[device] = asyncio.Event()
        try:
            await self._hypervisor.execute("device_del", id=device)
            async with asyncio.timeout(_UNPLUG_TIMEOUT):
                await gone.wait()
        except TimeoutError as error:
            raise StorageError(
                ErrorKind.STATE,
                f"the guest does not let go of the drive at {slot}; nothing has changed: let the guest start "
                "fully, or unmount it there, then try again",
                operation="detach",
            ) from error
        finally:
            del self._deleted[device]


def _cannot_plug(slot: Slot, kind: str) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"QEMU can't attach or detach at {slot} while the guest runs, as {kind} controllers don't hot-plug "
        "there; use a USB, VirtioSCSI or virtio-blk one, or stop the machine first",
        operation="change a drive",
    )
