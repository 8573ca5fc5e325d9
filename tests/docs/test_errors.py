"""The table of errors names tests that there are, and every number has either a test or a reason."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = (TESTS.parent / "docs/internals/errors.md").read_text()
ROWS = {
    int(number): (what, re.findall(r"`([^`]+)`", tests))
    for number, what, tests in re.findall(r"^\| E(\d+) \| (.+) \| (.*) ?\|$", TABLE, re.MULTILINE)
}


def _tested() -> defaultdict[int, set[str]]:
    """The numbers in the tests' names, with the files that have them."""
    found = defaultdict[int, set[str]](set)
    for path in TESTS.rglob("test_*.py"):
        for name in re.findall(r"^def test_((?:e\d+_)+)", path.read_text(), re.MULTILINE):
            for number in re.findall(r"e(\d+)_", name):
                found[int(number)].add(path.relative_to(TESTS).with_suffix("").as_posix())
    return found


TESTED = _tested()


def test_every_row_of_the_specification_is_there() -> None:
    assert list(ROWS) == list(range(1, 68))
    assert set(TESTED) <= set(ROWS)


@pytest.mark.parametrize("number", sorted(ROWS))
def test_a_row_has_tests_or_a_reason(number: int) -> None:
    what, files = ROWS[number]
    has_reason = re.match(r"\*(later|does not apply)\*: \w+", what) is not None
    assert has_reason is not bool(files), "either tests or a reason"
    assert has_reason is not bool(TESTED[number])
    assert set(files) <= TESTED[number]
