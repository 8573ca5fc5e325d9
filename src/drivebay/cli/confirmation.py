"""Asking before something is destroyed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from drivebay.cli.output import console, plain
from drivebay.errors import ErrorKind, StorageError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def confirm(what: str, *, yes: bool) -> None:
    """Say what will be done, and go on only if the user agrees; leaves the command (code 1) if not.

    Raises StorageError (INVALID) where nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise StorageError(
            ErrorKind.INVALID,
            f"this would {what}; nothing was done, as nobody can be asked here: say --yes to do it",
            operation="ask",
        )
    console(stderr=True).print(f"this will {plain(what)}")
    if not typer.confirm("go on?", err=True):
        raise typer.Exit(1)
