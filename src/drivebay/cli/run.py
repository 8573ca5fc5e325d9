"""Running a command: errors become one message and one exit code, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, TextIO

import typer

from drivebay.cli.app import app
from drivebay.cli.exit_codes import INTERNAL, INTERRUPTED, PIPE_CLOSED, SIGNALLED
from drivebay.cli.output import print_error
from drivebay.errors import ErrorKind, StorageError, from_os_error

DEBUG_VARIABLE = "DRIVEBAY_DEBUG"

_UsageError: Any = typer.BadParameter.__base__


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the answer is its exit code (see `drivebay.cli.exit_codes`)."""
    _prepare_process()
    try:
        code = app(args=list(arguments), prog_name="drivebay", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        # Typer makes an exit with code 1 of a closed pipe, which is a wrong answer here.
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _flush_or_drop(sys.stdout)
        return PIPE_CLOSED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exception(error)
        known = _as_storage_error(error)
        code = INTERNAL if known is None else known.exit_code
        with contextlib.suppress(OSError):  # the exit code tells, even if nobody reads
            print_error(known or _internal(error), code, as_json="--json" in arguments)
        _flush_or_drop(sys.stdout)
        _flush_or_drop(sys.stderr)
        return code


def _prepare_process() -> None:
    _open_standard_files()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _unwind)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no Unicode
    # A chain may have a thousand files, as many as a process may open by default.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _open_standard_files() -> None:
    """Put nothing where a standard file was closed: no image may get its number, and messages with it."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _flush_or_drop(stream: TextIO) -> None:
    """What can't be written is dropped: the interpreter's last flush must not complain of it."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _unwind(number: int, _frame: FrameType | None) -> None:
    """End by an exception, so that half-made files and other processes don't stay behind."""
    raise SystemExit(SIGNALLED + number)


def _as_storage_error(error: Exception) -> StorageError | None:
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error, "do this")
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "drivebay"
        text = f"{error.format_message().rstrip('.') or 'name a command'}; see {command} --help"
        return StorageError(ErrorKind.INVALID, text, operation="read the command line")
    return None


def _internal(error: Exception) -> StorageError:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    remedy = f"please report it, with what the same command prints under {DEBUG_VARIABLE}=1"
    return StorageError(ErrorKind.STATE, f"internal error ({what}); {remedy}", operation="internal")
