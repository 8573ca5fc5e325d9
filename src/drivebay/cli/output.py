"""How facts and errors are shown: to people with Rich, to programs as JSON."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from drivebay.errors import StorageError
from drivebay.model import NULL_UUID, Geometry

_PIPE_WIDTH = 10_000  # columns


@functools.cache
def console(*, stderr: bool = False) -> Console:
    """The terminal, or the pipe that stands for it. Long lines are left to the terminal."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, emoji=False)


def print_wide(shown: RenderableType) -> None:
    """A table or a tree, folded to the terminal's width; programs, which read a pipe, get whole lines."""
    if console().is_terminal:
        console().print(shown, soft_wrap=False)
    else:
        _wide_console().print(shown)


@functools.cache
def _wide_console() -> Console:
    return Console(highlight=False, emoji=False, width=_PIPE_WIDTH)


def printable(text: object) -> str:
    """``text`` of an image, a guest or a file name, without the power to control the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in str(text))


def plain(text: object) -> str:
    """As `printable`, and without the power to control Rich."""
    return escape(printable(text))


def print_json(value: object) -> None:
    """``value`` as one JSON document on standard output."""
    print(json.dumps(value, default=as_json_value, indent=2, ensure_ascii=False))


def as_json_value(value: object) -> Any:
    """What JSON has no word for: records, enums, UUIDs; null UUIDs and undecided geometries are null."""
    if isinstance(value, UUID):
        return None if value == NULL_UUID else str(value)
    if isinstance(value, Geometry) and not value:
        return None
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_error(error: StorageError, exit_code: int, *, as_json: bool) -> None:
    """One message on standard error."""
    if not as_json:
        console(stderr=True).print(f"[bold red]error:[/] {plain(error)}")
        return
    fields = {
        "kind": error.kind,
        "message": error.message,
        "path": error.path,
        "offset": error.offset,
        "operation": error.operation,
        "exit_code": exit_code,
    }
    print(json.dumps({"error": fields}, default=as_json_value), file=sys.stderr)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error while the block runs, if that is a terminal; takes bytes done and in all."""
    if not console(stderr=True).is_terminal:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def tell_hold(seconds: float) -> None:
    """Say for how long a running guest's disks stood still at a time while images were merged."""
    if seconds:
        console().print(f"the running guest's disks were held for {seconds * 1000:.0f} ms at most")
