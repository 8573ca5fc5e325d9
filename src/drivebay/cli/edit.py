"""The commands that change images in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from drivebay.cli.exit_codes import ANSWER_IS_NO
from drivebay.cli.images import image_fields
from drivebay.cli.options import FormatName, Image, Json, SearchFiles, opening
from drivebay.cli.output import console, plain, print_json
from drivebay.errors import ErrorKind, StorageError

if TYPE_CHECKING:
    from drivebay.blockmap import RepairStep
    from drivebay.service.edit import Repair


def repair(
    image: Image,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this, only tell.")] = False,
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Do also what loses data that can be read now.")
    ] = False,
    format_name: FormatName = None,
    search: SearchFiles = None,
    as_json: Json = False,
) -> None:
    """Tell what would repair the image, or do it. Exit code 1 if there is something left to do."""
    from drivebay.service.edit import repair_image

    options = opening(format_name, search)
    shown = None if as_json else _show_step
    found = repair_image(image, options, apply=apply, allow_loss=allow_loss, done=shown)
    if as_json:
        print_json({"path": image, "applied": apply, "loses": found.loses, "steps": _steps(found)})
    else:
        _show(found)
    if found.steps and not apply:
        raise typer.Exit(ANSWER_IS_NO)


def _steps(found: Repair) -> list[dict[str, object]]:
    return [{"message": step.message, "loses": step.loses} for step in found.steps]


def _show(found: Repair) -> None:
    if found.applied or not found.steps:
        console().print("repaired" if found.steps else "nothing to repair")
        return
    for step in found.steps:
        _show_step(step)
    lossy = " --allow-loss" if found.loses else ""
    console().print(f"nothing was changed; to do this, say --apply{lossy}")


def _show_step(step: RepairStep) -> None:
    console().print(f"{'[red]loses data[/] ' if step.loses else ''}{plain(step.message)}")


def set_(
    image: Image,
    fields: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD VALUE...",
            help="What to change: uuid, modification, parent, parent-uuid, parent-modification, "
            "parent-path, parent-format, comment, geometry or bios-geometry.",
            show_default=False,
        ),
    ],
    format_name: FormatName = None,
    search: SearchFiles = None,
    as_json: Json = False,
) -> None:
    """Change fields of the image's header, as far as its format has them. No data change."""
    from drivebay.service.edit import edit_image

    made = edit_image(image, _pairs(fields), opening(format_name, search))
    if as_json:
        print_json(image_fields(made))
    else:
        console().print(f"changed {plain(made.path)}; drivebay info shows it")


def _pairs(words: list[str]) -> dict[str, str]:
    if len(words) % 2:
        raise StorageError(
            ErrorKind.INVALID,
            f"the field {words[-1][:60]!r} has no value; write FIELD VALUE, like: comment 'the base'",
            operation="read the command line",
        )
    return dict(zip(words[::2], words[1::2], strict=True))
