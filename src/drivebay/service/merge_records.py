"""Merges in the registry: that one was begun, and what becomes of media and machines when it is done."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import delete, insert, select

from drivebay.chain.merge import Direction
from drivebay.machines.model import Hardware, Machine
from drivebay.machines.store import load, refresh, save
from drivebay.registry import schema
from drivebay.registry.database import Change, Registry, View
from drivebay.registry.medium import Medium

_KIND = "merge"


@dataclass(frozen=True, slots=True)
class Begun:
    """A merge that is noted; ``resumed`` if that was so before."""

    job: int
    direction: Direction
    resumed: bool


def begin_merge(registry: Registry, parent: Medium, child: Medium, direction: Direction) -> Begun:
    """Note that two media are being merged. One that was begun before keeps its direction."""
    pair = [str(parent.uuid), str(child.uuid)]
    table = schema.jobs
    with registry.change() as change:
        rows = change.connection.execute(select(table.c.id, table.c.payload).where(table.c.kind == _KIND))
        for number, payload in rows:
            known = json.loads(payload)
            if known["media"] == pair:
                return Begun(number, Direction(known["direction"]), resumed=True)
        payload = json.dumps({"media": pair, "direction": direction.value})
        row = {"kind": _KIND, "payload": payload, "state": "running", "done": 0, "total": 0}
        key = change.connection.execute(insert(table).values(row)).inserted_primary_key
    assert key is not None
    return Begun(key[0], direction, resumed=False)


def merges_begun(view: View) -> list[tuple[Medium, Medium]]:
    """Parent and child of all merges that were begun and can still end."""
    table, media = schema.jobs, view.tree.media
    rows = view.connection.execute(select(table.c.payload).where(table.c.kind == _KIND))
    pairs = [[UUID(each) for each in json.loads(payload)["media"]] for (payload,) in rows]
    return [
        (media[parent], media[child])
        for parent, child in pairs
        if parent in media and child in media and media[child].parent == parent
    ]


def record_merge(change: Change, begun: Begun, *, kept: Medium, gone: Medium) -> Medium:
    """Let ``kept`` take the place of both, for media and machines; its file has all of it."""
    if begun.direction is Direction.BACKWARD:  # it stands for the child's state from now on
        description = gone.description or kept.description
        now = replace(kept, merging=gone.merging, auto_reset=gone.auto_reset, description=description)
    else:
        now = replace(kept, parent=gone.parent)
    change.put_medium(now)
    above = [medium for medium in change.tree.children(gone.uuid) if medium.uuid != kept.uuid]
    for medium in above:
        change.put_medium(replace(medium, parent=kept.uuid))
    for uuid in {use.machine for use in change.tree.uses_of(gone.uuid)}:
        save(change, _with_medium(load(change, uuid), gone.uuid, kept.uuid))
    change.remove_medium(gone.uuid)
    refresh(change, [kept.uuid, *(medium.uuid for medium in above)])
    change.connection.execute(delete(schema.jobs).where(schema.jobs.c.id == begun.job))
    return now


def _with_medium(machine: Machine, old: UUID, new: UUID) -> Machine:
    """The machine with another medium in all its states; a saved guest goes on with that, too."""
    slots = {str(at.slot) for at in machine.hardware.attachments if at.medium == old}
    _let_state_go_on(machine, slots)
    snapshots = tuple(
        replace(snapshot, hardware=_hardware_with(snapshot.hardware, old, new))
        for snapshot in machine.snapshots
    )
    return replace(machine, hardware=_hardware_with(machine.hardware, old, new), snapshots=snapshots)


def _hardware_with(hardware: Hardware, old: UUID, new: UUID) -> Hardware:
    attachments = tuple(replace(at, medium=new) if at.medium == old else at for at in hardware.attachments)
    return replace(hardware, attachments=attachments)


def _let_state_go_on(machine: Machine, slots: set[str]) -> None:
    if not machine.state_file or not slots:
        return
    from drivebay.service.runtime.saved_state import read_header, write_header

    path = os.path.join(machine.folder, machine.state_file)
    header = read_header(path)
    disks = {slot: known for slot, known in header.disks.items() if slot not in slots}
    write_header(path, replace(header, disks=disks))
