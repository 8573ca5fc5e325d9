"""Starting a machine: what is to be done before its supervisor takes over."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from drivebay.chain.create import create_image
from drivebay.chain.resolve import open_layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.kinds import kind_of
from drivebay.machines.model import Controller, Machine, MachineState
from drivebay.machines.write_modes import Reset, forgotten_down_to, reset_plan
from drivebay.qemu.emulator import find_qemu
from drivebay.qemu.tiny_guest import TinyGuest
from drivebay.registry.database import Registry, open_registry
from drivebay.registry.home import Home
from drivebay.registry.journal import Remove, Rename
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service.machines.live import load_live, require_same
from drivebay.service.runtime.client import is_running
from drivebay.service.runtime.launch import launch

_OPERATION = "start the machine"


@dataclass(frozen=True, slots=True)
class StartOptions:
    """``substitute`` accepts the closest kind for controllers that QEMU lacks; ``vnc`` is host:port."""

    substitute: bool = False
    vnc: str = ""


def start(
    home: Home,
    name: str | UUID,
    options: StartOptions | None = None,
    on_status: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Start a machine, or resume a saved one; returns once its guest runs, with what `facts` of it.

    ``on_status`` is told what is done to its disks. Raises StorageError; then nothing runs.
    """
    options = options or StartOptions()
    _require_loopback(options.vnc)
    find_qemu()
    with open_registry(home) as registry:
        machine = _prepare(registry, name, options, on_status)
    return launch(home, machine.uuid, {"vnc": options.vnc})


def _prepare(
    registry: Registry, name: str | UUID, options: StartOptions, on_status: Callable[[str], None]
) -> Machine:
    with registry.view() as view:
        machine = load_live(view, registry.home, name)
    if is_running(registry.home, machine.uuid):
        raise StorageError(
            ErrorKind.IN_USE,
            f"machine {machine.name!r} runs already; drivebay machine status shows how",
            operation=_OPERATION,
        )
    if machine.hardware.settings.guest_script:
        TinyGuest.prepare(on_status=on_status)  # it may have to fetch a kernel, which is told here
    if options.substitute:
        machine = _accept_substitutes(registry, machine)
    if machine.state is not MachineState.SAVED:
        _reset_disks(registry, machine, on_status)
    return machine


def _accept_substitutes(registry: Registry, machine: Machine) -> Machine:
    """Use, and remember, the closest kind for each controller that QEMU lacks."""
    controllers = tuple(map(_substituted, machine.hardware.controllers))
    changed = replace(machine, hardware=replace(machine.hardware, controllers=controllers))
    if changed != machine:
        with registry.change() as change:
            require_same(change, registry.home, machine)
            store.save(change, changed)
    return changed


def _substituted(controller: Controller) -> Controller:
    kind = kind_of(controller.kind)
    if kind.qemu is not None or controller.substitute:
        return controller
    return replace(controller, substitute=kind.closest[0])


def _reset_disks(registry: Registry, machine: Machine, on_status: Callable[[str], None]) -> None:
    """Disks that forget everything at power-on do so (4.3), all of them in one transaction."""
    with registry.view() as view:
        forgetful = _forgetful(machine, view.tree)
    media = [(each.medium, parent) for each, parent in forgetful]
    if not media:
        return
    for medium, _ in media:
        _require_unused(medium)
    new = {medium.uuid: _beside(medium) for medium, _ in media}
    with registry.intend(list(new.values())) as intent:
        for medium, parent in media:
            _make_empty(medium, parent, new[medium.uuid])
        with registry.change() as change:
            require_same(change, registry.home, machine)
            if _forgetful(machine, change.tree) != forgetful:
                raise _changed(machine)
            for medium, parent in media:
                change.put_medium(replace(medium, parent=parent.uuid))
                if os.path.exists(medium.path):
                    change.after_commit(Remove([medium.path]))
                change.after_commit(Rename(new[medium.uuid], medium.path))
            store.refresh(change, [medium.uuid for medium, _ in media])
            change.finish(intent)
    for each, _ in forgetful:
        on_status(f"{each.attachment.slot}: forgets what was written to it, as {each.because}")


def _forgetful(machine: Machine, tree: MediaTree) -> list[tuple[Reset, Medium]]:
    """What is reset, and the image that it shows then."""
    plan = [each for each in reset_plan(machine, tree) if each.will_reset]
    return [(each, forgotten_down_to(tree, each.medium)) for each in plan]


def _changed(machine: Machine) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"the disks of machine {machine.name!r} were changed meanwhile by another command; try again",
        operation=_OPERATION,
    )


def _beside(medium: Medium) -> str:
    """Where the new image is made; one that a dead start left there was taken back by the registry."""
    folder, name = os.path.split(medium.path)
    return os.path.join(folder, f"reset-{name}")


def _require_unused(medium: Medium) -> None:
    """A machine that uses the disk in spite of all must not lose it."""
    if not os.path.exists(medium.path):
        return
    opened = open_layer(medium.path, medium.format, writable=True)
    for source in opened.sources:
        source.close()


def _make_empty(medium: Medium, parent: Medium, path: str) -> None:
    create_image(
        path,
        parent=parent.path,
        format_name=medium.format,
        parent_format=parent.format,
        uuid=medium.uuid,
        options={"variant": medium.variant} if medium.variant == "twoGbMaxExtentSparse" else None,
        comment=medium.description,
    )


def _require_loopback(vnc: str) -> None:
    if not vnc:
        return
    host, _, port = vnc.rpartition(":")
    if host not in ("127.0.0.1", "localhost", "[::1]") or not (
        port.isdecimal() and 5900 <= int(port) <= 65535
    ):
        raise StorageError(
            ErrorKind.INVALID,
            f"{vnc[:60]!r} is no loopback address for VNC, which has no password here; give "
            "127.0.0.1:PORT with a port from 5900 on",
            operation=_OPERATION,
        )
