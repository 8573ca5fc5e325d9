"""Commands about image files."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.table import Table

from drivebay.cli.exit_codes import ANSWER_IS_NO
from drivebay.cli.options import (
    AllowStaleParent,
    FormatName,
    Image,
    Json,
    Search,
    SearchFiles,
    Snapshot,
    opening,
)
from drivebay.cli.output import as_json_value, console, plain, print_json, print_wide
from drivebay.model import NULL_UUID, SECTOR, Finding, Geometry, Part, Severity
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.service.images import ImageInfo

_COLOURS = {Severity.NOTE: "blue", Severity.WARNING: "yellow", Severity.ERROR: "red"}


def info(
    image: Image,
    chain: Annotated[bool, typer.Option("--chain", help="Show the image's parents, too.")] = False,
    format_name: FormatName = None,
    snapshot: Snapshot = "",
    search: Search = None,
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Show what an image says about itself. An image in use can be looked at, too."""
    from drivebay.service import images

    options = opening(format_name, search, allow_stale_parent=allow_stale_parent, snapshot=snapshot)
    found = images.chain_info(image, options) if chain else [images.image_info(image, options)]
    if as_json:
        fields = [image_fields(one) for one in found]
        print_json({"depth": len(fields), "chain": fields} if chain else fields[0])
        return
    for number, one in enumerate(found):
        if number:
            console().print(f"\n[dim]parent {number}[/]")
        print_wide(_table(one))


def image_fields(one: ImageInfo) -> dict[str, object]:
    """An image as JSON shows it."""
    return {
        "path": one.path,
        "file_size": one.file_size,
        "disk_usage": one.disk_usage,
        "files": one.files,
        "notes": one.notes,
        **as_json_value(one.facts),
    }


def _table(one: ImageInfo) -> Table:
    facts = one.facts
    rows: dict[str, object] = {
        "image": one.path,
        "format": f"{facts.format}, {facts.variant}",
        "virtual size": _bytes(facts.size),
        "further files": _further(one),
        "file size": f"{_bytes(one.file_size)}, {format_size(one.disk_usage)} of them on disk",
        "block size": format_size(facts.block_size) if facts.block_size else None,
        "UUID": _uuid(facts.uuid),
        "modification UUID": _uuid(facts.modification_uuid),
        "parent UUID": _uuid(facts.parent_uuid),
        "parent modification UUID": _uuid(facts.parent_modification_uuid),
        "parent": facts.parent_names,
        "parent's snapshot": facts.parent_part,
        "parent's format": facts.parent_format,
        "content id": _content_id(facts.content_id),
        "parent's content id": _content_id(facts.parent_content_id),
        "snapshots": tuple(map(_part, facts.parts)),
        "sector size": None if facts.sector_size == SECTOR else facts.sector_size,
        "comment": facts.comment,
        "geometry (PCHS)": _geometry(facts.pchs),
        "geometry (LCHS)": _geometry(facts.lchs),
    }
    rows |= {name: value for name, value in facts.details.items() if not rows.get(name)}
    rows["note"] = one.notes
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value not in (None, "", ()):
            lines = value if isinstance(value, tuple) else (value,)
            table.add_row(f"[bold]{plain(name)}[/]", plain("\n".join(map(str, lines))))
    return table


def _further(one: ImageInfo) -> tuple[str, ...]:
    home = os.path.dirname(os.path.realpath(one.path))
    return tuple(os.path.relpath(file, home) for file in one.files[1:])


def _part(part: Part) -> str:
    moment = datetime.fromtimestamp(part.created, UTC) if part.created is not None else None
    when = f", made {moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""
    return f"{part.id}: {part.name} ({format_size(part.size)}{when})"


def _content_id(value: int | None) -> str | None:
    return None if value is None else f"{value:#010x}"


def _bytes(size: int) -> str:
    return f"{format_size(size)} ({size} bytes)"


def _uuid(value: UUID) -> str | None:
    return None if value == NULL_UUID else str(value)


def _geometry(value: Geometry) -> str | None:
    return f"{value.cylinders}/{value.heads}/{value.sectors}" if value else None


def check(
    image: Image,
    format_name: FormatName = None,
    search: SearchFiles = None,
    as_json: Json = False,
) -> None:
    """Look for damage in one image; its parents are not needed. Exit code 1 if there is an error."""
    from drivebay.service import images

    findings = images.check_image(image, opening(format_name, search))
    sound = not any(finding.severity is Severity.ERROR for finding in findings)
    if as_json:
        print_json({"path": image, "sound": sound, "findings": findings})
    else:
        for finding in findings:
            console().print(_line(finding))
        console().print(
            "no errors"
            if sound
            else "the image is damaged: restore it from a copy, or see what drivebay repair would do"
        )
    if not sound:
        raise typer.Exit(ANSWER_IS_NO)


def _line(finding: Finding) -> str:
    colour = _COLOURS[finding.severity]
    where = "" if finding.offset is None else f" (offset {finding.offset})"
    return f"[{colour}]{finding.severity.value}[/] {finding.code}: {plain(finding.message)}{where}"
