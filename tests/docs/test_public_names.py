"""``drivebay.__all__``, what the package really gives, and what the guide lists are the same names."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import drivebay

GUIDE = (Path(__file__).parents[2] / "docs/guide/python.md").read_text()


def test_the_guide_lists_the_public_names() -> None:
    cells = re.findall(r"^\| (`.*?) \|", GUIDE, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted(drivebay.__all__)


def test_each_lazy_name_is_public() -> None:
    assert sorted(drivebay._HOMES) == sorted(drivebay.__all__)


@pytest.mark.parametrize("name", drivebay.__all__)
def test_each_public_name_exists_and_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(drivebay, name))


def test_a_star_import_gives_just_these() -> None:
    code = "from drivebay import *; print(*sorted(name for name in dir() if name[0] != '_'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(drivebay.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'drivebay' has no attribute 'nonsense'"):
        _ = drivebay.nonsense


def test_the_version_is_that_of_the_package() -> None:
    assert drivebay.__version__ == version("drivebay")
