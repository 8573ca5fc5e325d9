"""``drivebay medium VERB`` for the verbs that move, delete or sort out files."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from drivebay.cli.confirmation import Yes, confirm
from drivebay.cli.home import chosen_home
from drivebay.cli.medium import MediumName, opened, tell
from drivebay.cli.medium import app as app  # with the verbs of both modules
from drivebay.cli.options import AllowStaleParent, Json
from drivebay.cli.output import console, plain, print_json, progress_bar, tell_hold
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.service.deletion import Deletion

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="The image file.", show_default=False)]
NewPlace = Annotated[str, typer.Argument(metavar="PATH", help="Where its file is now.", show_default=False)]


@app.command()
def delete(
    context: typer.Context,
    medium: MediumName,
    now: Annotated[bool, typer.Option("--now", help="For good, not into the trash.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a medium with all its files: into the trash, from where undelete brings it back."""
    from drivebay.service.deletion import delete_medium, plan_deletion

    with opened(context) as registry:
        with registry.view() as view:
            plan = plan_deletion(view, medium)
        confirm(_what(plan, now=now), yes=yes)
        plan = delete_medium(registry, str(plan.medium.uuid), now=now)
    tell(plan.medium, "deleted" if now else "moved to the trash:", as_json=as_json)


def _what(plan: Deletion, *, now: bool) -> str:
    files = f"{len(plan.files)} file{'s' if len(plan.files) != 1 else ''}, {format_size(plan.disk_usage)}"
    where = "for good" if now else "into the trash (drivebay medium undelete brings it back)"
    return f"delete {plan.medium.path} ({files}) {where}"


@app.command()
def undelete(
    context: typer.Context,
    medium: Annotated[
        str, typer.Argument(metavar="MEDIUM", help="Its path, or an id of list --trash.", show_default=False)
    ],
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Bring a medium back from the trash to where it was."""
    from drivebay.service.deletion import undelete_medium

    with opened(context) as registry:
        found = undelete_medium(registry, medium, allow_stale_parent=allow_stale_parent)
    tell(found, "brought back", as_json=as_json)


@app.command("empty-trash")
def empty_trash(
    context: typer.Context,
    days: Annotated[
        int, typer.Option("--older-than", metavar="DAYS", min=0, help="Keep what is younger.")
    ] = 0,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove for good what is in the trash."""
    from drivebay.service import deletion

    with opened(context) as registry:
        with registry.view() as view:
            count = len(deletion.discarded_media(view))
        older = f" that were deleted {days} days ago or earlier" if days else ""
        confirm(f"remove for good those of the {count} entries of the trash{older}", yes=yes)
        gone = deletion.empty_trash(registry, older_than=timedelta(days=days))
    if as_json:
        print_json([entry.label for entry in gone])
    else:
        console().print(f"removed {len(gone)} from the trash")


@app.command()
def tidy(
    context: typer.Context,
    machine: Annotated[
        str | None, typer.Option("--machine", metavar="MACHINE", help="Only the images of this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Merge or remove images that no state of a machine uses any more."""
    from drivebay.service.merging import consolidate

    with progress_bar("merging") as progress:
        done = consolidate(chosen_home(context), progress, machine)
    if as_json:
        merged = [{"gone": one.gone.path, "into": one.kept.path if one.kept else None} for one in done.merged]
        left = [{"path": one.medium.path, "reason": one.reason} for one in done.left]
        print_json({"merged": merged, "left": left, "longest_hold": done.longest_hold})
        return
    for one in done.merged:
        into = f", merged into {plain(one.kept.path)}" if one.kept else ""
        console().print(f"removed {plain(one.gone.path)}{into}")
    for each in done.left:
        console().print(f"left for later: {plain(each.reason)}")
    tell_hold(done.longest_hold)


@app.command()
def move(
    context: typer.Context,
    medium: MediumName,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A folder, a new name, or a path.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Move a medium with all its files, and tell its children. The extension stays."""
    from drivebay.service.moving import move_medium

    with opened(context) as registry:
        moved = move_medium(registry, medium, target)
    tell(moved, "moved to", as_json=as_json)


@app.command()
def relocate(context: typer.Context, medium: MediumName, path: NewPlace, as_json: Json = False) -> None:
    """Take down where a medium's file is now; nothing is copied or moved."""
    from drivebay.service.duplicates import relocate_medium

    with opened(context) as registry:
        found = relocate_medium(registry, medium, path)
    tell(found, "it is at", as_json=as_json)


@app.command()
def relink(context: typer.Context, medium: MediumName, path: NewPlace, as_json: Json = False) -> None:
    """As relocate, for a medium whose old file is gone."""
    from drivebay.service.duplicates import relocate_medium

    with opened(context) as registry:
        found = relocate_medium(registry, medium, path, gone=True)
    tell(found, "it is at", as_json=as_json)


@app.command()
def adopt(context: typer.Context, image: Image, as_json: Json = False) -> None:
    """Register a copy of a medium: the file gets a new UUID. At a medium's own place: that one's UUID."""
    from drivebay.service.duplicates import adopt_image

    with opened(context) as registry:
        adopted = adopt_image(registry, image)
    tell(adopted, "registered under this UUID, which the file has now:", as_json=as_json)


@app.command()
def replace(context: typer.Context, image: Image, yes: Yes = False, as_json: Json = False) -> None:
    """Let a file take the place of the medium that stands in its way, whose own file stays on disk."""
    from drivebay.service.duplicates import replace_medium

    confirm(f"make {image} what the registry has in its place now", yes=yes)
    with opened(context) as registry:
        replaced = replace_medium(registry, image)
    tell(replaced, "registered", as_json=as_json)
