"""The commands at the heads of the guides are run, and the files that documents name are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = """
drivebay create web.vdi --size 8M
drivebay machine create web
drivebay controller add web SATA --kind AHCI
drivebay attach web --medium web.vdi
"""
#: What a page's reader has already, by the page; the others need nothing.
BEFORE = {"machines": "", "media": "", "snapshots": WEB}
FOLDERS = ("", "src/drivebay", "tests", "docs/guide", "docs/internals")


@pytest.mark.parametrize("page", BEFORE)
def test_the_commands_of_a_guide_run(page: str, tmp_path: Path) -> None:
    text = (ROOT / f"docs/guide/{page}.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", BEFORE[page] + block],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "DRIVEBAY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_python_file_that_a_document_names_is_there() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert len(documents) > 30
    anywhere = {
        path.name for folder in ("src", "tests", "bench", "fuzz") for path in ROOT.glob(f"{folder}/**/*.py")
    }
    missing = [
        f"{document.name}: {name}"
        for document in documents
        for name in re.findall(r"`([\w/]+\.py)`", document.read_text())
        if name not in anywhere and not any((ROOT / folder / name).exists() for folder in FOLDERS)
    ]
    assert missing == ["adding-a-format.md: src/drivebay/formats/drawers.py"]  # the page has it
