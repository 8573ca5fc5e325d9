"""As `support.snapshot_model.Lab`, with a real home: registry, machine files, and small images on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from drivebay.chain import create_image, open_chain
from drivebay.chain.resolve import Chain
from drivebay.engine.disk import Disk
from drivebay.machines import store
from drivebay.machines.diffs import NewDiff
from drivebay.machines.model import Attachment, Controller, Hardware, Machine, Slot
from drivebay.machines.snapshots import plan_take
from drivebay.machines.write_modes import forgotten_down_to, plan_attach, reset_plan
from drivebay.registry.database import Change, open_registry
from drivebay.registry.home import Home
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service import snapshots
from drivebay.service.diffs import made_diffs, record_diffs
from drivebay.service.merging import consolidate
from drivebay.service.runtime.saved_state import StateHeader, write_header
from support.machines import START, named
from support.snapshot_model import Content, Lab, State

STEP = 100_000  # bytes between the sectors that are written: several of them fall into one block
CONTROLLER = Controller("SATA", "IntelAhci", 30)


class RealLab(Lab):
    """Everything is done by the service where it can be, and read from the files themselves."""

    def __init__(self, folder: Path, image_format: str = "vdi") -> None:
        self.folder = folder
        self.home = Home(os.path.realpath(folder / "home"))
        self.image_format = image_format

    def machine(self, name: str) -> UUID:
        """A new machine with a SATA controller."""
        made = Machine(
            named(name), name, str(self.folder / name), Hardware(controllers=(CONTROLLER,)), modified=False
        )
        self._change(lambda change: store.save(change, made))
        return made.uuid

    @property
    def tree(self) -> MediaTree:
        with open_registry(self.home) as registry, registry.view() as view:
            return view.tree

    @property  # type: ignore[override]
    def media(self) -> dict[UUID, Medium]:
        return dict(self.tree.media)

    @property  # type: ignore[override]
    def machines(self) -> dict[UUID, Machine]:
        with open_registry(self.home) as registry, registry.view() as view:
            return {one.uuid: one for one in store.load_all(view)}

    def _change(self, what: Callable[[Change], object]) -> None:
        with open_registry(self.home) as registry, registry.change() as change:
            what(change)

    def add(self, medium: Medium) -> None:
        path = str(self.folder / f"{os.path.basename(medium.path)[:-4]}.{self.image_format}")
        create_image(path, size=medium.size, format_name=self.image_format, uuid=medium.uuid)
        made = replace(medium, path=path, format=self.image_format)
        self._change(lambda change: change.put_medium(made))

    def set_type(self, medium: Medium) -> None:
        with open_registry(self.home) as registry, registry.change() as change:
            change.put_medium(medium)
            store.refresh(change, [medium.uuid])

    def attach(self, machine: UUID, slot: Slot, medium: UUID, previous: tuple[Attachment, ...] = ()) -> None:
        with open_registry(self.home) as registry:
            with registry.view() as view:
                holder, tree = store.load(view, machine), view.tree
            plan = plan_attach(holder, tree, slot, medium, previous)
            diffs: list[NewDiff] = [plan.diff] if plan.diff else []
            attachments = (*holder.hardware.attachments, Attachment(slot, medium=plan.medium))
            with made_diffs(registry, tree, diffs) as intent, registry.change() as change:
                record_diffs(change, intent, diffs)
                store.save(change, _with(holder, attachments))

    def detach(self, machine: UUID, slot: Slot) -> None:
        holder = self.machines[machine]
        left = tuple(at for at in holder.hardware.attachments if at.slot != slot)
        self._change(lambda change: store.save(change, _with(holder, left)))

    def take(self, machine: UUID, name: str, state_file: str = "") -> UUID:
        holder = self.machines[machine]
        if not state_file:
            return snapshots.take_snapshot(self.home, holder.name, name).snapshot.uuid
        with open_registry(self.home) as registry:
            tree = self.tree
            plan = plan_take(holder, tree, name, taken=START, state_file=state_file)
            path = os.path.join(holder.folder, state_file)
            with made_diffs(registry, tree, plan.diffs, files=[path]) as intent:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                Path(path).touch()
                write_header(path, StateHeader("pc-q35-7.2", "tcg", "7.2.0"))
                with registry.change() as change:
                    record_diffs(change, intent, plan.diffs)
                    store.save(change, plan.machine)
        return plan.snapshot.uuid

    def restore(self, machine: UUID, snapshot: UUID) -> None:
        snapshots.restore_snapshot(self.home, str(machine), str(snapshot))

    def delete(self, machine: UUID, snapshot: UUID) -> None:
        snapshots.delete_snapshot(self.home, str(machine), str(snapshot))

    def power_on(self, machine: UUID) -> list[Slot]:
        tree = self.tree
        resets = [one for one in reset_plan(self.machines[machine], tree) if one.will_reset]
        for one in resets:
            medium, parent = one.medium, forgotten_down_to(tree, one.medium)
            self.set_type(replace(medium, parent=parent.uuid))
            os.unlink(medium.path)
            create_image(medium.path, parent=parent.path, parent_format=parent.format, uuid=medium.uuid)
        return [one.attachment.slot for one in resets]

    def write(self, machine: UUID, slot: Slot, sector: int, value: int) -> None:
        tree, medium = self.tree, self.medium_at(machine, slot)
        assert not tree.children(medium)
        with Disk(_open(tree, medium, writable=True).layers, writable=True) as disk:
            disk.write(sector * STEP, value.to_bytes(8, "big"))

    def view(self, tree: MediaTree, medium: UUID) -> Content:
        with Disk(_open(tree, medium).layers) as disk:
            read = {sector: int.from_bytes(disk.read(sector * STEP, 8), "big") for sector in range(10)}
        return {sector: value for sector, value in read.items() if value}

    def shown(self, machine: UUID) -> dict[UUID | None, State]:
        holder, tree = self.machines[machine], self.tree
        states = [(None, holder.hardware), *((one.uuid, one.hardware) for one in holder.snapshots)]
        return {
            name: {at.slot: self.view(tree, at.medium) for at in hardware.attachments if at.medium}
            for name, hardware in states
        }

    def consolidate(self) -> int:
        return len(consolidate(self.home).merged)

    def files(self) -> set[str]:
        """All images and saved states there are."""
        endings = (f".{self.image_format}", ".sav")
        return {str(path) for path in self.folder.rglob("*") if path.suffix in endings and path.is_file()}


def _with(machine: Machine, attachments: tuple[Attachment, ...]) -> Machine:
    return replace(machine, hardware=replace(machine.hardware, attachments=attachments))


def _open(tree: MediaTree, medium: UUID, *, writable: bool = False) -> Chain:
    below = list(tree.chain(medium))
    return open_chain(
        below[0].path,
        writable=writable,
        format_name=below[0].format,
        search=[one.path for one in below],
    )
