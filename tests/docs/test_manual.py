"""The manual has every command, every option and every exit code, and none that isn't there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from drivebay.cli.app import app
from drivebay.cli.exit_codes import exit_codes
from drivebay.errors import MEANINGS

GUIDE = Path(__file__).parents[2] / "docs/guide"
MANUAL = "\n".join(page.read_text() for page in sorted(GUIDE.glob("*.md")))


def _commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """All commands by their whole names, like ``machine create``."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


COMMANDS = dict(_commands(typer.main.get_command(app)))
SHARED = {"--format", "--search", "--allow-stale-parent"}


def _section(command: str) -> str:
    found = re.search(rf"^### `drivebay {command}\b.*?$(.*?)(?=^##|\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found, f"{command} is not in the manual"
    return found[1]


def _options(command: str) -> set[str]:
    parameters = COMMANDS[command].params
    named = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
    return {option for option in named if option.startswith("--")} - {"--help"}


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
    told = re.findall(r"^### `drivebay ([a-z -]*[a-z])", MANUAL, re.MULTILINE)
    assert sorted(told) == sorted(COMMANDS)


def test_the_general_options_are_in_the_manual() -> None:
    for option in ("--version", "--help", "--install-completion", "--show-completion"):
        assert option in MANUAL


def test_the_exit_codes_are_in_the_manual() -> None:
    page = (GUIDE / "command-line.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == exit_codes()
    assert {meaning.exit_code for meaning in MEANINGS.values()} < set(exit_codes())
