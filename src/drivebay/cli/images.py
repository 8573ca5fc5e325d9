"""Commands about image files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.table import Table

from drivebay.cli.exit_codes import ANSWER_IS_NO
from drivebay.cli.options import AllowStaleParent, FormatName, Image, Json, Search, opening
from drivebay.cli.output import as_json_value, console, plain, print_json, progress_bar
from drivebay.model import NULL_UUID, Finding, Geometry, Severity
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.service.images import ImageInfo

_COLOURS = {Severity.NOTE: "blue", Severity.WARNING: "yellow", Severity.ERROR: "red"}


def info(
    image: Image,
    chain: Annotated[bool, typer.Option("--chain", help="Show the image's parents, too.")] = False,
    format_name: FormatName = None,
    search: Search = None,
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Show what an image says about itself. An image in use can be looked at, too."""
    from drivebay.service import images

    options = opening(format_name, search, allow_stale_parent=allow_stale_parent)
    found = images.chain_info(image, options) if chain else [images.image_info(image, options)]
    if as_json:
        fields = [_fields(one) for one in found]
        print_json({"depth": len(fields), "chain": fields} if chain else fields[0])
        return
    for number, one in enumerate(found):
        if number:
            console().print(f"\n[dim]parent {number}[/]")
        console().print(_table(one))


def _fields(one: ImageInfo) -> dict[str, object]:
    return {
        "path": one.path,
        "file_size": one.file_size,
        "disk_usage": one.disk_usage,
        **as_json_value(one.facts),
    }


def _table(one: ImageInfo) -> Table:
    facts = one.facts
    rows: dict[str, object] = {
        "image": one.path,
        "format": f"{facts.format}, {facts.variant}",
        "virtual size": _bytes(facts.size),
        "file size": f"{_bytes(one.file_size)}, {format_size(one.disk_usage)} of them on disk",
        "block size": format_size(facts.block_size) if facts.block_size else None,
        "UUID": _uuid(facts.uuid),
        "modification UUID": _uuid(facts.modification_uuid),
        "parent UUID": _uuid(facts.parent_uuid),
        "parent modification UUID": _uuid(facts.parent_modification_uuid),
        "comment": facts.comment,
        "geometry (PCHS)": _geometry(facts.pchs),
        "geometry (LCHS)": _geometry(facts.lchs),
        **facts.details,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        if value not in (None, ""):
            table.add_row(f"[bold]{name}[/]", plain(value))
    return table


def _bytes(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


def _uuid(value: UUID) -> str | None:
    return None if value == NULL_UUID else str(value)


def _geometry(value: Geometry) -> str | None:
    return f"{value.cylinders}/{value.heads}/{value.sectors}" if value else None


def create(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The new file.", show_default=False)],
    size: Annotated[str | None, typer.Option("--size", metavar="SIZE", help="Like 10G or 512 MiB.")] = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="IMAGE", help="Make a child of this image.")
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="vdi or raw; by default the name's extension decides."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="dynamic (the default) or fixed.")
    ] = None,
    block_size: Annotated[
        str | None, typer.Option("--block-size", metavar="SIZE", help="Unit of allocation, like 2M.")
    ] = None,
    uuid: Annotated[str | None, typer.Option("--uuid", metavar="UUID", help="Default: a random one.")] = None,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Kept in the image.")] = "",
    as_json: Json = False,
) -> None:
    """Make a new image of --size, or a differencing one on --parent. Never overwrites a file."""
    from drivebay.service import images

    with progress_bar("reserving space") as progress:
        made = images.create_image(
            image,
            size=size,
            parent=parent,
            format=format_name,
            variant=variant,
            block_size=block_size,
            uuid=uuid,
            comment=comment,
            progress=progress,
        )
    if as_json:
        print_json(_fields(made))
        return
    facts = made.facts
    console().print(f"made {plain(made.path)}: {facts.format}, {facts.variant}, {format_size(facts.size)}")


def check(image: Image, format_name: FormatName = None, as_json: Json = False) -> None:
    """Look for damage in one image; its parents are not needed. Exit code 1 if there is an error."""
    from drivebay.service import images

    findings = images.check_image(image, opening(format_name))
    sound = not any(finding.severity is Severity.ERROR for finding in findings)
    if as_json:
        print_json({"path": image, "sound": sound, "findings": findings})
    else:
        for finding in findings:
            console().print(_line(finding))
        console().print("no errors" if sound else "the image is damaged: restore it from a copy")
    if not sound:
        raise typer.Exit(ANSWER_IS_NO)


def _line(finding: Finding) -> str:
    colour = _COLOURS[finding.severity]
    where = "" if finding.offset is None else f" (offset {finding.offset})"
    return f"[{colour}]{finding.severity.value}[/] {finding.code}: {plain(finding.message)}{where}"
