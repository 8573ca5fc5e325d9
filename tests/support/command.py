"""The ``drivebay`` command: in this process, which is quick, or as users run it, in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drivebay.cli.run import run

COMMAND = [sys.executable, "-m", "drivebay"]
Done = subprocess.CompletedProcess[str]
_TIMEOUT = 60


def drivebay(*arguments: object) -> Done:
    """Run ``drivebay`` with ``arguments`` in this process."""
    command = [_text(argument) for argument in arguments]
    stdout, stderr = io.StringIO(), io.StringIO()
    with _own_signals(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = run(command)
    return Done(command, code, stdout.getvalue(), stderr.getvalue())


@contextmanager
def _own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def drivebay_process(*arguments: object, **options: Any) -> Done:
    """Run ``drivebay`` with ``arguments`` as a process, to its end."""
    command = [*COMMAND, *map(_text, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False, **options)


def drivebay_json(*arguments: object) -> Any:
    """What a command that must succeed prints with ``--json``."""
    done = drivebay(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failure(done: Done, exit_code: int) -> str:
    """The message of a command that must have failed with ``exit_code``, and without a traceback."""
    assert done.returncode == exit_code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``drivebay serve`` while the context lasts; gives the process and the first URL. It must end well."""
    command = [*COMMAND, "serve", *map(_text, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, process.communicate()
            yield process, url
            process.send_signal(signal.SIGTERM)
            _, complaint = process.communicate(timeout=_TIMEOUT)
            assert process.returncode == 0, complaint
        finally:
            process.kill()


def _text(argument: object) -> str:
    return os.fspath(argument) if isinstance(argument, os.PathLike) else str(argument)
