"""A machine that runs the tiny guest, and a shell in it over the machine's serial socket."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import drivebay
from drivebay.machines import store
from drivebay.machines.model import Attachment, Controller, Firmware, Hardware, Machine, Settings, Slot
from drivebay.qemu import TinyGuest
from drivebay.qemu.arguments import SERIAL_SOCKET
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.medium import DeviceType, Medium, MediumType
from drivebay.service.runtime import MachineClient, connect, is_running, start
from drivebay.service.runtime.plan import facts_of

MIB = 1 << 20
BOOT_TIMEOUT = 180.0

# Answers every line with what it prints and "@@done STATUS"; the power button works.
SHELL = r"""
set +e
stty -F /dev/ttyS0 -echo -onlcr
for event in /dev/input/event*; do
    (dd if=$event of=/dev/null bs=24 count=1; poweroff -f) > /dev/null 2>&1 &
done
echo "@@shell"
while IFS= read -r line; do
    ( eval "$line" ) 2>&1
    echo "@@done $?"
done < /dev/ttyS0
"""


class Shell:
    """A shell in the guest."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._pending = b""
        self.seen = ""

    def wait_for(self, mark: str, timeout: float = BOOT_TIMEOUT) -> str:
        """All that the guest says up to the line with ``mark``."""
        deadline = time.monotonic() + timeout
        while mark.encode() not in self._pending or not self._pending.endswith(b"\n"):
            left = deadline - time.monotonic()
            assert left > 0, f"the guest did not say {mark!r}, but: {self._pending[-2000:]!r}"
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 16)
            assert data, f"the guest's line ended: {self._pending[-2000:]!r}"
            self._pending += data
        said, self._pending = self._pending.decode(errors="replace"), b""
        return said

    def send(self, command: str) -> None:
        """Begin a command without waiting for its end."""
        self._socket.sendall(command.encode() + b"\n")

    def run(self, command: str, timeout: float = 120, *, fails: bool = False) -> str:
        """What ``command`` (one line) prints; it must succeed, unless it ``fails``."""
        self.send(command)
        return self.end(timeout, fails=fails)

    def end(self, timeout: float = 120, *, fails: bool = False) -> str:
        """What the command that was begun prints."""
        said, _, status = self.wait_for("@@done ", timeout).rpartition("@@done ")
        assert fails or status.split()[0] == "0", f"{status}: {said}"
        return said.replace("\r", "").strip()

    def close(self) -> None:
        self._socket.close()


@dataclass
class Bench:
    """A home with one machine that boots the tiny guest."""

    home: Home
    folder: Path
    guest: TinyGuest
    controllers: tuple[Controller, ...] = ()
    attachments: list[Attachment] = field(default_factory=list)
    media: list[Medium] = field(default_factory=list)
    uuid: UUID = field(default_factory=uuid4)
    name: str = "bench"
    settings: Settings = field(default_factory=Settings)
    shells: list[Shell] = field(default_factory=list)

    def disk(self, slot: Slot, name: str, size: int = 8 * MIB, **flags: object) -> Path:
        """A new image, attached to a slot."""
        path = self.folder / name
        drivebay.create(path, size=size)
        self.attach(slot, path, DeviceType.DISK, size, **flags)
        return path

    def attach(
        self, slot: Slot, path: Path | None, device: DeviceType, size: int = 0, **flags: object
    ) -> None:
        """An image that is there, or an empty drive."""
        medium = None if path is None else self.medium(path, device, size)
        self.attachments.append(
            Attachment(slot, device, None if medium is None else medium.uuid, **flags)  # type: ignore[arg-type]
        )

    def medium(
        self,
        path: Path,
        device: DeviceType = DeviceType.DISK,
        size: int = 0,
        kind: MediumType = MediumType.NORMAL,
    ) -> Medium:
        """Register an image."""
        facts = facts_of(str(path), "")
        uuid = facts.uuid if facts.uuid.int else uuid4()
        medium = Medium(uuid, str(path.resolve()), facts.format, device, kind, size=size)
        self.media.append(medium)
        return medium

    def save(self, *, direct: bool = True) -> Machine:
        """Register all of it; ``direct`` boots the tiny guest, else its firmware finds what to boot."""
        if direct:
            self._boot_directly()
        machine = Machine(
            self.uuid,
            self.name,
            str(self.folder / "machine"),
            Hardware(self.settings, self.controllers, tuple(self.attachments)),
        )
        os.makedirs(machine.folder, exist_ok=True)
        with open_registry(self.home) as registry, registry.change() as change:
            for medium in self.media:
                change.put_medium(medium)
            store.save(change, machine)
        return machine

    def _boot_directly(self) -> None:
        kinds = [controller.substitute or controller.kind for controller in self.controllers]
        firmware = self.settings.firmware
        kernel = self.guest.files(self.folder, SHELL, kinds, efi=firmware is Firmware.EFI)
        self.settings = Settings(
            memory_mib=192,
            firmware=firmware,
            kernel=str(kernel.kernel),
            initrd=str(kernel.initramfs),
            command_line=kernel.command_line,
        )

    def load(self) -> Machine:
        """The machine as the registry has it."""
        with open_registry(self.home) as registry, registry.view() as view:
            return store.load(view, self.uuid)

    def start(self) -> Shell:
        """Start the machine, and wait for the guest's shell."""
        start(self.home, self.uuid)
        shell = self.shell()
        shell.wait_for("@@shell")
        return shell

    def shell(self) -> Shell:
        """A line to the guest."""
        shell = Shell(os.path.join(self.home.run_folder(self.uuid), SERIAL_SOCKET))
        self.shells.append(shell)
        return shell

    def chain(self, slot: Slot) -> list[str]:
        """A disk's images, top first, by the registry."""
        with open_registry(self.home) as registry, registry.view() as view:
            medium = next(at.medium for at in self.load().hardware.attachments if at.slot == slot)
            assert medium is not None
            return [one.path for one in view.tree.chain(medium)]

    def client(self) -> MachineClient:
        """A connection to the supervisor."""
        return connect(self.home, self.uuid)

    def off(self) -> None:
        """Whatever has happened: nothing runs afterwards."""
        for shell in self.shells:
            shell.close()
        if is_running(self.home, self.uuid):
            with self.client() as client:
                client.kill()


@contextmanager
def new_bench(
    guest: TinyGuest, *controllers: Controller, settings: Settings | None = None
) -> Iterator[Bench]:
    """A machine in a folder of its own, whose path is short; at the end it is off, and its folder is gone."""
    folder = Path(tempfile.mkdtemp(prefix="drivebay-"))
    bench = Bench(
        find_home(str(folder / "home")), folder, guest, controllers, settings=settings or Settings()
    )
    try:
        yield bench
    finally:
        bench.off()
        shutil.rmtree(folder)
