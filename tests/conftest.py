"""What a whole run has to say beside its single tests: the interop matrix, the number of crash states.

With ``DRIVEBAY_INTEROP_PAGE`` set to a path, the matrix goes into that page, too.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from xdist.scheduler import LoadGroupScheduling

CRASH_STATES_AT_LEAST = 1000  # for each format
GUESTS = ("tests/guest/", "tests/docs/test_first_machine.py")


class GuestsInTurn(LoadGroupScheduling):  # type: ignore[misc]
    """One process runs all tests that boot guests, which have no processors to share.

    Their mark ``xdist_group`` says so, but under pytest 9.2 nobody sees it (pytest-xdist, issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return "guest" if nodeid.startswith(GUESTS) else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> GuestsInTurn | None:
    """How tests are given to processes, where ``--dist loadgroup`` is asked for."""
    return GuestsInTurn(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_configure() -> None:
    """Interrupts are tested also where the run was started in the background, which ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests recorded."""
    _interop_matrix(terminalreporter)
    if states := _crash_states(terminalreporter):
        terminalreporter.section("crash states examined")
        for name, (number, whole) in sorted(states.items()):
            terminalreporter.write_line(f"{name}: {number}" + ("" if whole else " (not all cases ran)"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A format of which all cases ran, with too few states, fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    few = [
        name
        for name, (number, whole) in (_crash_states(reporter) if reporter else {}).items()
        if whole and number < CRASH_STATES_AT_LEAST
    ]
    if few:
        print(f"\nfewer than {CRASH_STATES_AT_LEAST} crash states: {', '.join(few)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _recorded(reporter: pytest.TerminalReporter, wanted: str) -> list[tuple[object, ...]]:
    passed = reporter.getreports("passed")
    return [tuple(value) for report in passed for name, value in report.user_properties if name == wanted]


def _crash_states(reporter: pytest.TerminalReporter) -> dict[str, tuple[int, bool]]:
    """For each format: how many states were examined, and whether all its cases ran."""
    states: Counter[str] = Counter()
    missing: dict[str, int] = {}
    for name, cases, examined in _recorded(reporter, "crash states"):
        states[str(name)] += int(str(examined))
        missing[str(name)] = missing.get(str(name), int(str(cases))) - 1
    return {name: (number, missing[name] == 0) for name, number in states.items()}


def _interop_matrix(reporter: pytest.TerminalReporter) -> None:
    rows = _recorded(reporter, "interop")
    if not rows:
        return
    from support.interop import table_of, write_page

    lines = table_of(rows)
    reporter.section("interop: image x direction x tool")
    for line in lines:
        reporter.write_line(line)
    if page := os.environ.get("DRIVEBAY_INTEROP_PAGE"):
        write_page(lines, page)
