"""Commands about media: ``drivebay medium VERB``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drivebay.cli import create as image_options
from drivebay.cli.home import chosen_home
from drivebay.cli.options import AllowStaleParent, FormatName, Json, Search
from drivebay.cli.output import console, plain, print_json, print_wide, progress_bar
from drivebay.registry.medium import DeviceType, MediumType

if TYPE_CHECKING:
    from drivebay.registry.database import Registry
    from drivebay.registry.medium import Medium
    from drivebay.service.media_state import MediumInfo

app = typer.Typer(help="Images that drivebay knows: listed, made, moved, deleted.", no_args_is_help=True)

MediumName = Annotated[
    str, typer.Argument(metavar="MEDIUM", help="UUID, path, or the file's name.", show_default=False)
]
Device = Annotated[
    DeviceType | None, typer.Option("--device", metavar="KIND", help="disk, dvd or floppy; else by the file.")
]
Type = Annotated[
    MediumType | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="normal, immutable, writethrough, shareable, readonly or multiattach.",
    ),
]


def opened(context: typer.Context) -> Registry:
    """The registry of this command line."""
    from drivebay.registry.database import open_registry

    return open_registry(chosen_home(context))


def tell(medium: Medium, done: str, *, as_json: bool) -> None:
    """Show a medium that something was done to."""
    from drivebay.cli.media_output import medium_fields

    if as_json:
        print_json(medium_fields(medium))
    else:
        console().print(f"{done} {plain(medium.path)} ({medium.uuid})")


@app.command()
def create(
    context: typer.Context,
    image: image_options.NewImage,
    size: image_options.Size = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="MEDIUM", help="Make a differencing image on this.")
    ] = None,
    format_name: image_options.NewFormat = None,
    variant: image_options.Variant = None,
    block_size: image_options.BlockSize = None,
    option: image_options.Option = None,
    uuid: image_options.NewUuid = None,
    comment: image_options.Comment = "",
    device: Annotated[DeviceType, typer.Option("--device", metavar="KIND", help="disk or floppy.")] = (
        DeviceType.DISK
    ),
    type: Type = None,
    auto_reset: Annotated[
        bool, typer.Option("--auto-reset", help="With --parent: forget everything at each start.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an image and register it: of --size, or a differencing one on --parent."""
    from drivebay.service import media

    with opened(context) as registry, progress_bar("reserving space") as progress:
        made = media.create_medium(
            registry,
            image,
            device=device,
            type=type,
            parent=parent,
            auto_reset=auto_reset,
            comment=comment,
            uuid=uuid,
            size=size,
            format=format_name,
            variant=variant,
            block_size=block_size,
            options=image_options.pairs(option or []),
            progress=progress,
        )
    tell(made, "made", as_json=as_json)


@app.command()
def add(
    context: typer.Context,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image file.", show_default=False)],
    device: Device = None,
    type: Type = None,
    format_name: FormatName = None,
    search: Search = None,
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Register an image that is there, and its parents if they aren't known yet."""
    from drivebay.cli.media_output import medium_fields
    from drivebay.service.registering import register

    with opened(context) as registry:
        found = register(
            registry,
            image,
            device=device,
            type=type,
            format_name=format_name,
            search=search or (),
            allow_stale_parent=allow_stale_parent,
        )
    if as_json:
        print_json({"medium": medium_fields(found[0]), "parents": [medium_fields(one) for one in found[1:]]})
        return
    tell(found[0], "registered", as_json=False)
    for parent in found[1:]:
        tell(parent, "with its parent", as_json=False)


@app.command("list")
def list_(
    context: typer.Context,
    trash: Annotated[bool, typer.Option("--trash", help="What was deleted and can be brought back.")] = False,
    as_json: Json = False,
) -> None:
    """All media, with their states and sizes on disk."""
    from drivebay.cli.media_output import info_fields, media_table

    if trash:
        _list_trash(context, as_json=as_json)
        return
    infos = _infos(context)
    if as_json:
        print_json([info_fields(info) for info in infos])
    elif infos:
        print_wide(media_table(infos))
    else:
        console().print("no media; drivebay medium create makes one, drivebay medium add registers an image")


def _infos(context: typer.Context) -> list[MediumInfo]:
    from drivebay.service.media_state import media_info

    with opened(context) as registry, registry.view() as view:
        return media_info(view)


def _list_trash(context: typer.Context, *, as_json: bool) -> None:
    from drivebay.service.deletion import discarded_media

    with opened(context) as registry, registry.view() as view:
        entries = discarded_media(view)
    if as_json:
        print_json([_trash_fields(entry) for entry in entries])
        return
    for entry in entries:
        console().print(f"{entry.id}  {plain(entry.label)}  deleted {entry.deleted:%Y-%m-%d %H:%M:%S} UTC")
    if not entries:
        console().print("the trash is empty")


def _trash_fields(entry: Any) -> dict[str, object]:
    moves = [{"from": before, "to": now} for before, now in entry.moves]
    return {"id": entry.id, "path": entry.label, "deleted": entry.deleted.isoformat(), "files": moves}


@app.command()
def show(context: typer.Context, medium: MediumName, as_json: Json = False) -> None:
    """All that is known of one medium."""
    from drivebay.cli.media_output import info_fields, show_medium
    from drivebay.service.media import find_medium
    from drivebay.service.media_state import media_info

    with opened(context) as registry, registry.view() as view:
        wanted = find_medium(view.tree, medium)
        info = media_info(view, only=wanted.uuid)[0]
    if as_json:
        print_json(info_fields(info))
    else:
        show_medium(info)


@app.command()
def tree(context: typer.Context, as_json: Json = False) -> None:
    """Media as trees: bases with their diffs; * marks what a machine reads and writes now."""
    from drivebay.cli.media_output import media_trees, tree_fields

    infos = _infos(context)
    if as_json:
        print_json(tree_fields(infos))
        return
    for one in media_trees(infos):
        print_wide(one)


@app.command()
def close(context: typer.Context, medium: MediumName, as_json: Json = False) -> None:
    """Forget a medium; its file stays where it is."""
    from drivebay.service.media import close_medium

    with opened(context) as registry:
        closed = close_medium(registry, medium)
    tell(closed, "closed, and kept the file of,", as_json=as_json)


@app.command("set-type")
def set_type(
    context: typer.Context,
    medium: MediumName,
    type: Annotated[
        MediumType,
        typer.Argument(
            metavar="TYPE",
            help="normal, immutable, writethrough, shareable, readonly or multiattach.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Change how a base may be written."""
    from drivebay.service import media

    with opened(context) as registry:
        changed = media.set_type(registry, medium, type)
    tell(changed, f"{type.value} is now", as_json=as_json)


@app.command("set")
def set_(
    context: typer.Context,
    medium: MediumName,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")
    ] = None,
    auto_reset: Annotated[
        bool | None,
        typer.Option("--auto-reset/--no-auto-reset", help="A diff that forgets everything at each start."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a medium's description, or whether it forgets everything at power-on."""
    from drivebay.service import media

    with opened(context) as registry, registry.view() as view:
        changed = media.find_medium(view.tree, medium)
    with opened(context) as registry:
        if description is not None:
            changed = media.describe_medium(registry, str(changed.uuid), description)
        if auto_reset is not None:
            changed = media.set_auto_reset(registry, str(changed.uuid), auto_reset)
    tell(changed, "changed", as_json=as_json)
