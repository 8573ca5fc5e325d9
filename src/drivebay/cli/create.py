"""The command that makes images; its help tells the options of any format."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from drivebay.cli.images import image_fields
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json, progress_bar
from drivebay.errors import ErrorKind, StorageError
from drivebay.service.sizes import format_size

_HELP = {"--help", "-h"}

NewImage = Annotated[str, typer.Argument(metavar="IMAGE", help="The new file.", show_default=False)]
Size = Annotated[str | None, typer.Option("--size", metavar="SIZE", help="Like 10G or 512 MiB.")]
NewFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Default: by the name's extension, else vdi (see drivebay formats).",
    ),
]
Variant = Annotated[
    str | None, typer.Option("--variant", metavar="NAME", help="One of the format's kinds of images.")
]
BlockSize = Annotated[
    str | None, typer.Option("--block-size", metavar="SIZE", help="Unit of allocation, like 2M.")
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="An option of the format (--help FORMAT); repeatable.",
    ),
]
NewUuid = Annotated[str | None, typer.Option("--uuid", metavar="UUID", help="Default: a random one.")]
Comment = Annotated[str, typer.Option("--comment", metavar="TEXT", help="Kept in the image.")]


class CreateCommand(TyperCommand):
    """Shows a format's own options for ``--help FORMAT``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the base class, after a look for help on a format."""
        for flag, name in itertools.pairwise(args):
            if flag in _HELP and not name.startswith("-"):
                _show_format(name)
                ctx.exit()
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def _show_format(name: str) -> None:
    from drivebay.cli.formats import format_details
    from drivebay.service.format_options import format_info

    console().print(format_details(format_info(name)))


def create(
    image: NewImage,
    size: Size = None,
    parent: Annotated[
        str | None,
        typer.Option(
            "--parent", metavar="IMAGE", help="Make a child of this image; of a bundle itself: a snapshot."
        ),
    ] = None,
    parent_format: Annotated[
        str | None, typer.Option("--parent-format", metavar="NAME", help="The parent's, not probed then.")
    ] = None,
    format_name: NewFormat = None,
    variant: Variant = None,
    block_size: BlockSize = None,
    option: Option = None,
    uuid: NewUuid = None,
    comment: Comment = "",
    as_json: Json = False,
) -> None:
    """Make a new image of --size, or a differencing one on --parent. Never overwrites a file.

    "drivebay create --help FORMAT" shows the kinds and the options of a format's images.
    """
    from drivebay.service import images

    with progress_bar("reserving space") as progress:
        made = images.create_image(
            image,
            size=size,
            parent=parent,
            parent_format=parent_format,
            format=format_name,
            variant=variant,
            block_size=block_size,
            options=pairs(option or []),
            uuid=uuid,
            comment=comment,
            progress=progress,
        )
    if as_json:
        print_json(image_fields(made))
        return
    facts = made.facts
    console().print(f"made {plain(made.path)}: {facts.format}, {facts.variant}, {format_size(facts.size)}")


def pairs(options: list[str]) -> dict[str, str]:
    """Options of a format as they are given. Raises StorageError (INVALID)."""
    pairs: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise StorageError(
                ErrorKind.INVALID,
                f"{option[:60]!r} is no option of a format; write it like NAME=VALUE",
                operation="read the command line",
            )
        pairs[name.strip()] = value
    return pairs
