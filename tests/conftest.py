"""The interop matrix as a table at the end of a run that measured it.

With ``DRIVEBAY_INTEROP_PAGE`` set to a path, the table goes into that page, too.
"""

from __future__ import annotations

import os

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table from what the tests recorded."""
    passed = terminalreporter.getreports("passed")
    rows = [value for report in passed for name, value in report.user_properties if name == "interop"]
    if not rows:
        return
    from support.interop import table_of, write_page

    lines = table_of(tuple(row) for row in rows)
    terminalreporter.section("interop: image x direction x tool")
    for line in lines:
        terminalreporter.write_line(line)
    if page := os.environ.get("DRIVEBAY_INTEROP_PAGE"):
        write_page(lines, page)
