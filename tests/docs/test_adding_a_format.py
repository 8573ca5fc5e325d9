"""The guide's format, added to a copy of the tree as the guide says: the suite picks it up by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guide/adding-a-format.md").read_text()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source and the tests, with the guide's file and line in it."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    code = re.search(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert code
    formats = copy / "src/drivebay/formats"
    (formats / "drawers.py").write_text(code[1])
    registry = (formats / "__init__.py").read_text()
    registry = registry.replace("from drivebay.formats import ", "from drivebay.formats import drawers, ")
    (formats / "__init__.py").write_text(
        registry.replace("    raw.FORMAT,", "    drawers.FORMAT,\n    raw.FORMAT,")
    )
    return copy


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_suite_picks_it_up_and_passes(tree: Path) -> None:
    done = run(tree, "pytest", "tests/conformance", "-k", "drawers", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 4


def test_the_commands_know_it(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.drawers"
    made = run(tree, "drivebay", "create", str(image), "--size", "10M")
    assert made.returncode == 0, made.stderr
    child = run(tree, "drivebay", "create", str(tmp_path / "child.vdi"), "--parent", str(image))
    assert child.returncode == 0, child.stderr
    told = run(tree, "drivebay", "info", str(tmp_path / "child.vdi"), "--chain", "--json")
    assert told.returncode == 0, told.stderr
    assert '"drawers"' in told.stdout
