"""``drivebay snapshot`` for the verbs that only show something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import typer
from rich.table import Table
from rich.tree import Tree

from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import Machine
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json, print_wide
from drivebay.cli.snapshot import SnapshotName, snapshot_fields
from drivebay.cli.snapshot import app as app  # with the verbs of both modules
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.service.snapshot_views import DiskOf, SnapshotsInfo, StateInfo


@app.command("list")
def list_(context: typer.Context, machine: Machine, as_json: Json = False) -> None:
    """All snapshots of a machine, the oldest first; * marks the current one."""
    info = _info(context, machine)
    if as_json:
        print_json([_fields(one) for one in info.snapshots])
    elif info.snapshots:
        print_wide(_table(info))
    else:
        console().print("no snapshots; drivebay snapshot take makes one")


@app.command()
def tree(context: typer.Context, machine: Machine, as_json: Json = False) -> None:
    """The snapshots as a tree, and where in it the current state is."""
    info = _info(context, machine)
    if as_json:
        print_json(_branch(info, None))
    else:
        print_wide(_drawn(info))


@app.command()
def show(context: typer.Context, machine: Machine, snapshot: SnapshotName, as_json: Json = False) -> None:
    """One snapshot, with the disks that it holds."""
    from drivebay.machines.snapshot_tree import find_snapshot

    info = _info(context, machine)
    wanted = find_snapshot(info.machine, snapshot)
    state = next(one for one in info.snapshots if one.snapshot == wanted)
    if as_json:
        print_json(_fields(state))
        return
    console().print(_label(state))
    if wanted.description:
        console().print(plain(wanted.description))
    for disk in state.disks:
        console().print(_disk(disk))


def _info(context: typer.Context, machine: str) -> SnapshotsInfo:
    from drivebay.service.snapshot_views import snapshots_info

    return snapshots_info(chosen_home(context), machine)


def _fields(state: StateInfo) -> dict[str, Any]:
    kept = state.snapshot
    disks = [
        {"slot": one.slot, "medium": one.medium.uuid, "path": one.medium.path, "captured": one.captured}
        | {"disk_usage": one.disk_usage}
        for one in state.disks
    ]
    sizes = {"disk_usage": state.disk_usage, "memory": state.memory}
    if kept is None:
        return {"current_state": True, **sizes, "disks": disks}
    return {
        **snapshot_fields(kept),
        "current": state.is_current,
        **sizes,
        "disks": disks,
    }


def _branch(info: SnapshotsInfo, parent: UUID | None) -> list[dict[str, Any]]:
    """The states under a snapshot; each holds its children."""
    found = [
        {**_fields(one), "children": _branch(info, one.snapshot.uuid)}
        for one in info.snapshots
        if one.snapshot is not None and one.snapshot.parent == parent
    ]
    return [*found, _fields(info.current)] if info.machine.current == parent else found


def _drawn(info: SnapshotsInfo) -> Tree:
    root = Tree(f"[bold]{plain(info.machine.name)}[/]", guide_style="dim")
    nodes: dict[UUID | None, Tree] = {None: root}
    waiting = list(info.snapshots)
    while waiting:
        state = waiting.pop(0)
        kept = state.snapshot
        if kept is not None and kept.parent in nodes:
            nodes[kept.uuid] = nodes[kept.parent].add(_label(state))
        else:
            waiting.append(state)
    changed = ", changed since" if info.machine.current and info.machine.modified else ""
    size = f"{format_size(info.current.disk_usage)} on disk"
    label = f"[bold green]* current state[/] ({info.machine.state.value}{changed})  {size}"
    nodes[info.machine.current].add(label)
    return root


def _label(state: StateInfo) -> str:
    kept = state.snapshot
    if kept is None:
        return "current state"
    kind = f"online, {format_size(state.memory)} of memory" if kept.state_file else "offline"
    size = f"{format_size(state.disk_usage)} on disk"
    taken = f"{kept.taken:%Y-%m-%d %H:%M:%S} UTC"
    return f"[bold]{plain(kept.name)}[/]  {taken}  {kind}  {size}  [dim]{kept.uuid}[/]"


def _table(info: SnapshotsInfo) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "snapshot", "taken (UTC)", "kind", "on disk", "UUID", "description"):
        table.add_column(name, overflow="fold")
    for state in info.snapshots:
        kept = state.snapshot
        if kept is None:
            continue
        table.add_row(
            "*" if state.is_current else "",
            plain(kept.name),
            f"{kept.taken:%Y-%m-%d %H:%M:%S}",
            "online" if kept.state_file else "offline",
            format_size(state.disk_usage + state.memory),
            str(kept.uuid),
            plain(kept.description),
        )
    return table


def _disk(disk: DiskOf) -> str:
    kept = "" if disk.captured else f"  [yellow]not kept[/] ({disk.medium.type.value})"
    return f"{disk.slot}  {plain(disk.medium.path)}  {format_size(disk.disk_usage)} on disk{kept}"
