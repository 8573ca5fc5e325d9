"""Errors become messages and exit codes, never tracebacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drivebay.cli import content, run
from drivebay.cli.exit_codes import exit_codes
from drivebay.errors import MEANINGS, ErrorKind, StorageError
from support.command import drivebay_process


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda _number, _handler: None)


def _raise(error: BaseException) -> object:
    def opening(*_arguments: object, **_options: object) -> None:
        raise error

    return opening


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_each_kind_has_its_exit_code(
    kind: ErrorKind, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(content, "opening", _raise(StorageError(kind, "it [broke]", path="a.vdi")))
    assert run.run(["map", "a.vdi"]) == MEANINGS[kind].exit_code
    assert capsys.readouterr().err == "error: a.vdi: it [broke]\n"


def test_every_exit_code_has_one_meaning() -> None:
    codes = [meaning.exit_code for meaning in MEANINGS.values()]
    assert len(set(codes)) == len(codes)
    assert set(codes).isdisjoint({0, 1, 70, 130, 141, 143})
    assert set(codes) < set(exit_codes())


def test_an_internal_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(content, "opening", _raise(ZeroDivisionError("oops")))
    assert run.run(["map", "a.vdi"]) == 70
    told = capsys.readouterr().err
    assert told == (
        "error: internal error (ZeroDivisionError: oops); please report it, "
        "with what the same command prints under DRIVEBAY_DEBUG=1\n"
    )
    monkeypatch.setenv("DRIVEBAY_DEBUG", "1")
    assert run.run(["map", "a.vdi"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(PermissionError(13, "Permission denied", "x"), 8), (KeyboardInterrupt(), 130)]
)
def test_errors_of_the_system_and_the_user(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(content, "opening", _raise(error))
    assert run.run(["map", "a.vdi"]) == code


def test_termination_leaves_no_half_image(tmp_path: Path) -> None:
    # It sleeps in short naps: a signal that comes just before a sleep is handled after it.
    code = (
        "import sys, drivebay.engine.source as s, time; from drivebay.cli import main\n"
        "s.FileSource.reserve = lambda *a: (print('here', flush=True), *map(time.sleep, [0.1] * 600))\n"
        "sys.argv[1:] = ['create', sys.argv[1], '--size=64M', '--variant=fixed']; main()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.vdi")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert list(tmp_path.iterdir())
        process.terminate()
        assert process.wait(30) == 143
    assert not list(tmp_path.iterdir())


def test_a_noun_without_a_verb_is_told_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(["machine"]) == 2
    assert capsys.readouterr().err == "error: name a command; see drivebay machine --help\n"


def test_an_interruption_while_it_starts_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise KeyboardInterrupt")
    done = drivebay_process("medium", "list", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (130, "")


def test_help_starts_without_the_engine() -> None:
    code = (
        "import sys, drivebay.cli.run; print([m for m in ('numpy', 'drivebay.engine') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_closed_standard_files_are_as_if_nobody_read(tmp_path: Path) -> None:
    script = (
        '"$0" -m drivebay create "$1" --size 1M <&- >&- 2>&- && "$0" -m drivebay check "$1" >&-; echo $?; '
        '"$0" -m drivebay info "$1.not" 2>/dev/full; echo $?; "$0" -m drivebay info "$1.not" 2>&-; echo $?; '
        '"$0" -m drivebay info "$1" 2>/dev/null >/dev/full; echo $?'
    )
    command = ["sh", "-c", script, sys.executable, str(tmp_path / "a.vdi")]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=buffered)
    assert (done.stdout, done.stderr) == ("0\n4\n4\n9\n", "")
