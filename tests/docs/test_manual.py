"""The manual has every command, every option and every exit code, and none that isn't there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from drivebay.cli.app import app
from drivebay.cli.exit_codes import exit_codes
from drivebay.errors import MEANINGS

MANUAL = (Path(__file__).parents[2] / "docs/guide/command-line.md").read_text()
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SHARED = {"--format", "--search", "--allow-stale-parent"}


def _section(command: str) -> str:
    found = re.search(rf"^### `drivebay {command}\b.*?$(.*?)(?=^##|\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found, f"{command} is not in the manual"
    return found[1]


def _options(command: str) -> set[str]:
    options = {option for one in COMMANDS[command].params for option in one.opts if option.startswith("--")}
    return options - {"--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_manual(command: str) -> None:
    section = _section(command)
    told = set(re.findall(r"`(--[a-z-]+)", section))
    if "for finding the parents" in " ".join(section.split()):
        told |= SHARED
    assert told >= _options(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_manual_invents_no_option(command: str) -> None:
    table = re.findall(r"^\| `(--[a-z-]+)", _section(command), re.MULTILINE)
    assert set(table) <= _options(command)


def test_the_manual_invents_no_command() -> None:
    assert set(re.findall(r"^### `drivebay (\w+)", MANUAL, re.MULTILINE)) == set(COMMANDS)


def test_the_general_options_are_in_the_manual() -> None:
    for option in ("--version", "--help", "--install-completion", "--show-completion"):
        assert option in MANUAL


def test_the_exit_codes_are_in_the_manual() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", MANUAL, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == exit_codes()
    assert {meaning.exit_code for meaning in MEANINGS.values()} < set(exit_codes())
