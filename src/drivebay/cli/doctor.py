"""The commands that hold the registry against what lies on disk, and that make it anew."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from drivebay.cli.confirmation import Yes, confirm
from drivebay.cli.exit_codes import ANSWER_IS_NO
from drivebay.cli.home import chosen_home
from drivebay.cli.options import Json
from drivebay.cli.output import console, plain, print_json
from drivebay.model import Severity

if TYPE_CHECKING:
    from drivebay.service.doctor import Trouble

_COLOURS = {Severity.NOTE: "blue", Severity.WARNING: "yellow", Severity.ERROR: "red"}


def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Do what can do no harm.")] = False,
    as_json: Json = False,
) -> None:
    """Tell where the registry and the files disagree, and the remedies. Exit code 1 if they do."""
    from drivebay.registry.database import open_registry
    from drivebay.service import doctor as service

    with open_registry(chosen_home(context)) as registry:
        troubles = service.examine(registry)
        fixed = service.fix(registry, troubles) if fix else []
    left = [trouble for trouble in troubles if trouble not in fixed]
    sound = all(trouble.severity is Severity.NOTE for trouble in left)
    if as_json:
        print_json({"sound": sound, "fixed": fixed, "findings": left})
    else:
        _show(fixed, left, sound=sound)
    if not sound:
        raise typer.Exit(ANSWER_IS_NO)


def _show(fixed: list[Trouble], left: list[Trouble], *, sound: bool) -> None:
    for trouble in fixed:
        console().print(f"[green]fixed[/] {_line(trouble)}")
    for trouble in left:
        console().print(f"[{_COLOURS[trouble.severity]}]{trouble.severity.value}[/] {_line(trouble)}")
        console().print(f"    {plain(trouble.remedy)}")
    if sound:
        console().print("the registry and the files agree")


def _line(trouble: Trouble) -> str:
    where = f"{plain(trouble.path)}: " if trouble.path else ""
    return f"{trouble.code}: {where}{plain(trouble.message)}"


def rebuild(
    context: typer.Context,
    folders: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER...", help="Where images and machine files are.", show_default=False),
    ],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make the registry anew from image files, machine files and media.json. An old one is kept."""
    from drivebay.service import rebuild as service

    home = chosen_home(context)
    if os.path.exists(home.registry):
        confirm(f"make {home.registry} anew from {', '.join(folders)}, and keep the old file beside", yes=yes)
    report = service.rebuild_registry(home, folders)
    if as_json:
        print_json(report)
        return
    console().print(f"{report.media} media and {report.machines} machines are registered")
    for note in report.notes:
        console().print(f"[yellow]note[/] {plain(note)}")
    if report.old:
        console().print(f"the old registry is {plain(report.old)}")
