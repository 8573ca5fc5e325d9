"""The demo: a real guest with a normal, an immutable and a write-through disk catches a virus on all three.

A power cycle cleans the immutable disk, restoring a snapshot the normal one, and nothing the write-through
one. It checks itself, in the guest and from the host: where something is not as told, it raises StorageError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Slot
from drivebay.machines.store import load
from drivebay.qemu import TinyGuest
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.registry.medium import MediumType
from drivebay.service.content import checksum
from drivebay.service.demo_guest import INFECT, LETTER, LETTER_NAME, LOOK, MODES
from drivebay.service.demo_parts import boot, file_system, temporary_home, write_content
from drivebay.service.disks import open_disk
from drivebay.service.images import create_image
from drivebay.service.machines.drives import attach
from drivebay.service.machines.hardware import add_controller
from drivebay.service.machines.lifecycle import create_machine, edit_machine
from drivebay.service.machines.request import AttachRequest, Place
from drivebay.service.media_state import MediumInfo, media_info
from drivebay.service.options import OpenOptions
from drivebay.service.sizes import format_size
from drivebay.service.snapshots import restore_snapshot, take_snapshot

_SIZE = 32 << 20
_MACHINE = "patient"
_SNAPSHOT = "healthy"
_CONTROLLER = "SATA"
_CLEAN, _INFECTED = "clean", "infected"


class Teller(Protocol):
    """Whoever tells the story to the user."""

    def chapter(self, title: str) -> None:
        """A new step begins."""

    def say(self, text: str) -> None:
        """Something that drivebay did or found."""

    def guest(self, text: str) -> None:
        """Something that the guest said."""

    def media(self, infos: Sequence[MediumInfo]) -> None:
        """All images, and what builds on what."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """What all steps share. ``healthy`` is the checksum of a clean disk."""

    home: Home
    machine: UUID
    healthy: str
    teller: Teller

    def boot(self, script: str, expected: Sequence[str]) -> None:
        """Run ``script`` in the guest, which must find the disks, in the order of `MODES`, as expected."""
        edit_machine(self.home, _MACHINE, settings={"guest_script": script})
        run = boot(self.home, self.machine, self.teller.say)
        for line in run.marked("says "):
            self.teller.guest(line)
        self.teller.say(f"the guest has shut down after {run.seconds:.0f} s")
        require("end 0" in run.marks, f"the guest's script failed: {run.marks[-3:]}")
        found = dict(line.split() for line in run.marked("found "))
        for mode, wanted in zip(MODES, expected, strict=True):
            require(found.get(mode) == wanted, f"the guest finds the {mode} disk {found.get(mode)}")

    def check(self, expected: Sequence[str]) -> None:
        """Compare the disks with a clean one, from the host, and show all images."""
        for port, (mode, wanted) in enumerate(zip(MODES, expected, strict=True)):
            is_healthy = self._checksum(port) == self.healthy
            require(is_healthy == (wanted == _CLEAN), f"the {mode} disk is not {wanted}, seen from the host")
        states = ", ".join(f"{mode}: {wanted}" for mode, wanted in zip(MODES, expected, strict=True))
        self.teller.say(f"checksums on the host agree. {states}")
        self.show()

    def show(self) -> None:
        """Show all images, and what builds on what."""
        with open_registry(self.home) as registry, registry.view() as view:
            self.teller.media(media_info(view))

    def _checksum(self, port: int) -> str:
        """Of what the guest sees on the disk in ``port``."""
        with open_registry(self.home) as registry, registry.view() as view:
            attachments = load(view, self.machine).hardware.attachments
            (medium,) = (at.medium for at in attachments if at.slot == Slot(_CONTROLLER, port))
            require(medium is not None, f"port {port} is empty")
            paths = [one.path for one in view.tree.chain(medium)] if medium else []
        with open_disk(paths[0], OpenOptions(parents=paths[1:])) as disk:
            return checksum(disk)


def run_demo(teller: Teller) -> None:
    """Tell the story and leave nothing behind. Raises StorageError for what is missing or not as told."""
    teller.chapter("Getting ready")
    guest = TinyGuest.prepare(on_status=teller.say)
    how = "KVM" if guest.accelerator == "kvm" else "software emulation, for this processor offers no KVM"
    teller.say(f"the guest is a tiny Linux in QEMU; it runs with {how}")
    with temporary_home() as home:
        stage = _make_machine(home, teller)
        for step in _STEPS:
            step(stage)
    teller.chapter(
        "Done: a power cycle cleans the immutable disk, a restore the normal one, nothing the third"
    )


def _make_machine(home: Home, teller: Teller) -> _Stage:
    teller.chapter("1. A machine with three disks, and a snapshot of it")
    folder = Path(home.folder)
    folder.mkdir()
    content = file_system({LETTER_NAME: f"{LETTER}\n"}, _SIZE, folder)
    machine = create_machine(home, _MACHINE, settings={"guest_script": LOOK, "memory_mib": 192})
    add_controller(home, _MACHINE, _CONTROLLER, "IntelAhci", ports=len(MODES))
    for port, (mode, kind) in enumerate(MODES.items()):
        path = folder / f"{mode}.vdi"
        healthy = _make_disk(path, content)
        attach(home, _MACHINE, AttachRequest(Place(_CONTROLLER, port), str(path), type=kind))
        teller.say(f"{path.name}: {format_size(_SIZE)} with a file system and a letter, {_WRITES[kind]}")
    content.unlink()
    take_snapshot(home, _MACHINE, _SNAPSHOT)
    teller.say(f"snapshot {_SNAPSHOT!r} is taken; * marks the images that the guest will write:")
    stage = _Stage(home, machine.uuid, healthy, teller)
    stage.show()
    return stage


_WRITES = {
    MediumType.NORMAL: "normal: what a guest writes can be undone by snapshots",
    MediumType.IMMUTABLE: "immutable: what a guest writes is forgotten at the next start",
    MediumType.WRITETHROUGH: "write-through: what a guest writes stays, snapshots or not",
}


def _make_disk(path: Path, content: Path) -> str:
    """A dynamic VDI with ``content``; its checksum."""
    create_image(path, size=_SIZE)
    with open_disk(path, writable=True) as disk:
        write_content(disk, content)
        return checksum(disk)


def _infect(stage: _Stage) -> None:
    stage.teller.chapter("2. The guest boots, and catches a virus on all three disks")
    stage.boot(INFECT, [_CLEAN] * 3)
    stage.check([_INFECTED] * 3)


def _power_cycle(stage: _Stage) -> None:
    stage.teller.chapter("3. A power cycle")
    expected = [_INFECTED, _CLEAN, _INFECTED]
    stage.boot(LOOK, expected)
    stage.check(expected)


def _restore(stage: _Stage) -> None:
    stage.teller.chapter(f"4. The snapshot {_SNAPSHOT!r} is restored")
    done = restore_snapshot(stage.home, _MACHINE, _SNAPSHOT)
    stage.teller.say(f"{len(done.dropped)} images with what came after it are gone, new ones are empty")
    expected = [_CLEAN, _CLEAN, _INFECTED]
    stage.boot(LOOK, expected)
    stage.check(expected)


_STEPS: tuple[Callable[[_Stage], None], ...] = (_infect, _power_cycle, _restore)


def require(condition: bool, otherwise: str) -> None:
    """Whether the story goes as told. Raises StorageError."""
    if not condition:
        raise StorageError(
            ErrorKind.STATE, f"the demo went wrong: {otherwise}; please report it", operation="demo"
        )
