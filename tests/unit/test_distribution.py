"""Tests that boot guests run one after another, in one process."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest
@pytest.mark.parametrize("number", range(4))
def test_it(number):
    pass
"""


def test_guests_are_booted_by_one_process(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    for name in ("tests/guest/test_a", "tests/guest/test_b", "tests/unit/test_c"):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    ran = re.findall(r"^\[(gw\d)\].*PASSED (tests/\w+)", done.stdout, re.MULTILINE)
    assert len(ran) == 12
    assert len({process for process, folder in ran if folder == "tests/guest"}) == 1
