"""The command about formats, and how a format is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from drivebay.cli.options import Json
from drivebay.cli.output import plain, print_json, print_wide

if TYPE_CHECKING:
    from drivebay.service.format_options import FormatInfo, OptionInfo

_CAPABILITIES = ("create", "check", "repair", "edit")


def formats_(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one, in detail.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the image formats, what drivebay does with them, and the options of new images."""
    from drivebay.service.format_options import format_info, list_formats

    known = list_formats() if name is None else [format_info(name)]
    if as_json:
        print_json(known if name is None else known[0])
    else:
        print_wide(_overview(known) if name is None else format_details(known[0]))


def _overview(known: Sequence[FormatInfo]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("format", *_CAPABILITIES, "names end in", "new images"):
        table.add_column(title)
    for one in known:
        capabilities = ["yes" if getattr(one, name) else "-" for name in _CAPABILITIES]
        extensions = " ".join(f".{extension}" for extension in one.extensions)
        table.add_row(one.name, *capabilities, plain(extensions), ", ".join(one.variants))
    return table


def format_details(info: FormatInfo) -> RenderableType:
    """All about one format: its variants, and the options of new images."""
    if not info.create:
        return f"drivebay reads {info.name} images, but doesn't make them."
    table = Table(box=None, pad_edge=False, title_justify="left")
    for title in ("option", "value", "default", ""):
        table.add_column(title)
    for option in info.options:
        default = "" if option.default is None else _value(option.default)
        table.add_row(option.name, plain(_values(option)), plain(default), plain(option.help))
    return Group(f"Options of new {info.name} images (-o NAME=VALUE):\n", table)


def _values(option: OptionInfo) -> str:
    return ", ".join(option.choices) or option.kind


def _value(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
