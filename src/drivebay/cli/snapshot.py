"""Commands about snapshots: ``drivebay snapshot VERB MACHINE``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from drivebay.cli.confirmation import Yes, confirm
from drivebay.cli.home import chosen_home
from drivebay.cli.machine_options import Machine
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json, progress_bar, tell_hold
from drivebay.machines.snapshot_names import UniqueName
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.machines.model import Snapshot
    from drivebay.service.snapshot_views import DeletePreview, Merge, RestorePreview
    from drivebay.service.snapshots import Taken

app = typer.Typer(help="Restore points of machines: taken, restored, deleted.", no_args_is_help=True)

SnapshotName = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="The snapshot's name or UUID.", show_default=False)
]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")]

_KINDS = {
    "offline": "of the machine, which is off",
    "saved": "of the saved machine",
    "online": "of the running guest, with its memory",
    "live": "of the running guest, with its memory, while it went on",
    "disks": "of the running guest's disks, without its memory",
}


def snapshot_fields(snapshot: Snapshot) -> dict[str, object]:
    """A snapshot as JSON shows it, without its hardware."""
    return {
        "uuid": snapshot.uuid,
        "name": snapshot.name,
        "description": snapshot.description,
        "taken": snapshot.taken.isoformat(),
        "parent": snapshot.parent,
        "online": bool(snapshot.state_file),
    }


@app.command()
def take(
    context: typer.Context,
    machine: Machine,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.", show_default=False)],
    description: Description = None,
    live: Annotated[
        bool, typer.Option("--live", help="Write most of the memory while the guest goes on.")
    ] = False,
    no_state: Annotated[
        bool, typer.Option("--no-state", help="Of a running guest: its disks only, without its memory.")
    ] = False,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="With --no-state: have the guest agent flush and freeze before.")
    ] = False,
    unique: Annotated[
        UniqueName,
        typer.Option(
            "--unique", metavar="HOW", help="If the name is taken, append a number or the time: number, time."
        ),
    ] = UniqueName.NO,
    as_json: Json = False,
) -> None:
    """Take a snapshot of a machine, whether it is off, saved, paused or running."""
    from drivebay.service.snapshots import take_snapshot

    taken = take_snapshot(
        chosen_home(context),
        machine,
        name,
        description=description or "",
        unique=unique,
        memory=not no_state,
        live=live,
        freeze=freeze,
    )
    if as_json:
        fields = {"kind": taken.kind, "paused": taken.paused, "frozen": taken.frozen, "memory": taken.memory}
        print_json({**snapshot_fields(taken.snapshot), **fields, "warnings": taken.warnings})
    else:
        _show_taken(taken)


def _show_taken(taken: Taken) -> None:
    console().print(
        f"took snapshot {plain(taken.snapshot.name)} {_KINDS[taken.kind]} ({taken.snapshot.uuid})"
    )
    if taken.paused:
        memory = f", with {format_size(taken.memory)} of memory written" if taken.memory else ""
        console().print(f"the guest stood still for {taken.paused * 1000:.0f} ms{memory}")
    if taken.frozen:
        console().print(f"its file systems were frozen for {taken.frozen * 1000:.0f} ms")
    _warn(taken.warnings)


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        console(stderr=True).print(f"[yellow]warning:[/] {plain(warning)}")


@app.command()
def restore(
    context: typer.Context,
    machine: Machine,
    snapshot: Annotated[
        str | None,
        typer.Argument(
            metavar="[SNAPSHOT]",
            help="The snapshot's name or UUID; default: the current one.",
            show_default=False,
        ),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Bring back the state that a snapshot holds. What the machine did since its last snapshot is lost."""
    from drivebay.service.snapshot_views import preview_restore
    from drivebay.service.snapshots import restore_snapshot

    home = chosen_home(context)
    preview = preview_restore(home, machine, snapshot)
    confirm(_restoring(preview), yes=yes)
    restored = restore_snapshot(home, str(preview.machine.uuid), str(preview.snapshot.uuid))
    if as_json:
        dropped = [medium.path for medium in restored.dropped]
        result = {"state": restored.machine.state, "lost": dropped, "warnings": restored.warnings}
        print_json({**snapshot_fields(restored.snapshot), **result})
        return
    state = restored.machine.state.value
    console().print(f"restored snapshot {plain(restored.snapshot.name)}; the machine is {state}")
    _warn(restored.warnings)


def _restoring(preview: RestorePreview) -> str:
    lost = [f"the current state ({medium.path})" for medium in preview.dropped] or ["nothing on disks"]
    saved = " and the saved state" if preview.loses_saved_state else ""
    return (
        f"restore snapshot {preview.snapshot.name!r} of machine {preview.machine.name!r}, and lose "
        f"{', '.join(lost)}{saved}: {format_size(preview.freed)}; a snapshot taken before keeps that"
    )


@app.command()
def delete(
    context: typer.Context,
    machine: Machine,
    snapshot: SnapshotName,
    later: Annotated[
        bool, typer.Option("--later", help="Leave the merging to the next start, or to medium tidy.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a restore point; no state changes, and images that are left over are merged."""
    from drivebay.service.snapshot_views import preview_delete
    from drivebay.service.snapshots import delete_snapshot

    home = chosen_home(context)
    preview = preview_delete(home, machine, snapshot)
    confirm(_deleting(preview), yes=yes)
    deleted = delete_snapshot(home, str(preview.machine.uuid), str(preview.snapshot.uuid))
    hold = 0.0
    if not later:
        from drivebay.service.merging import consolidate

        with progress_bar("merging") as progress:
            tidied = consolidate(home, progress=progress, machine=preview.machine.uuid)
        _warn(tuple(f"{one.medium.path} is merged later: {one.reason}" for one in tidied.left))
        hold = tidied.longest_hold
    if as_json:
        merges = [_merge_fields(merge) for merge in preview.merges]
        removed = [medium.path for medium in deleted.dropped]
        steps = {"merges": merges, "removed": removed, "freed": preview.freed, "longest_hold": hold}
        print_json({**snapshot_fields(deleted.snapshot), **steps})
    else:
        console().print(f"deleted snapshot {plain(deleted.snapshot.name)}")
        tell_hold(hold)


def _deleting(preview: DeletePreview) -> str:
    steps = [f"delete {medium.path}" for medium in preview.dropped] + [*map(_merging, preview.merges)]
    done = "; ".join(steps) or "leave all images as they are"
    return (
        f"delete snapshot {preview.snapshot.name!r} of machine {preview.machine.name!r}: {done} "
        f"({format_size(preview.freed)} are free at once)"
    )


def _merge_fields(merge: Merge) -> dict[str, object]:
    waits = [medium.path for medium in merge.waits_for]
    return {
        "source": merge.source,
        "target": merge.target,
        "copied": merge.copied,
        "waits_for": waits,
        "forgotten": merge.forgotten,
    }


def _merging(merge: Merge) -> str:
    if merge.waits_for:
        return f"keep {merge.medium.path}, on which {len(merge.waits_for)} images build"
    if merge.forgotten:
        return f"keep {merge.medium.path} until the diff on it is reset, which forgets both"
    return f"merge {merge.source} into {merge.target} (up to {format_size(merge.copied)} are copied)"


@app.command()
def edit(
    context: typer.Context,
    machine: Machine,
    snapshot: SnapshotName,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Another name.")] = None,
    description: Description = None,
    as_json: Json = False,
) -> None:
    """Change a snapshot's name or description."""
    from drivebay.service.snapshots import change_snapshot

    changed = change_snapshot(chosen_home(context), machine, snapshot, name=name, description=description)
    if as_json:
        print_json(snapshot_fields(changed))
    else:
        console().print(f"changed snapshot {plain(changed.name)} ({changed.uuid})")
