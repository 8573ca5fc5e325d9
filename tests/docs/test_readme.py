"""What the README and the examples show is run."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _block(heading: str, language: str) -> str:
    _, found, section = README.partition(f"\n## {heading}\n")
    assert found, heading
    (block,) = re.findall(
        rf"^```{language}\n(.*?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    return str(block)


def _run(script: str) -> str:
    """What the commands print; none may fail or complain."""
    assert len(script.splitlines()) <= 20
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DRIVEBAY_HOME": f"{os.getcwd()}/home"}
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="db-") as name:
        monkeypatch.chdir(name)
        yield Path(name)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("folder")
def test_the_images_commands_run() -> None:
    printed = _run(_block("Images without machines", "sh"))
    for part in (
        "vdi, differencing",
        "nbd+unix:///child.vdi?socket=",
        "child.vdi at ",
        "differ",
        "no errors",
    ):
        assert part in printed


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("folder")
def test_the_machines_commands_run() -> None:
    printed = _run(_block("A machine", "sh"))
    for part in (
        "system.vdi",
        "tools.vdi",
        "diff of normal",
        "diff of immutable, auto-reset",
        "current: clean",
    ):
        assert part in printed


@pytest.mark.usefixtures("folder")
def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(_block("From Python", "python"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    for part in ("zero None", "data child.vdi", "nbd+unix:///child.vdi?socket="):
        assert part in printed
    with drivebay.open("child.vdi") as disk:
        assert disk.read(1 << 20, 12) == bytes(12)
        assert disk.read(8 << 20, 14) == b"written on top"


def test_a_raw_disk_is_imported(folder: Path) -> None:
    content = bytes(1 << 20) + os.urandom(1000) + bytes(3 << 20)
    (folder / "a.img").write_bytes(content)
    module = runpy.run_path(str(ROOT / "examples/import_raw.py"))
    module["import_raw"]("a.img", "a.vdi")
    with drivebay.open("a.vdi") as disk:
        assert disk.read(0, len(content)) == content
        assert [extent.start for extent in disk.extents() if extent.state is drivebay.ExtentState.DATA] == [
            1 << 20
        ]


@pytest.mark.usefixtures("folder")
def test_changes_are_listed() -> None:
    drivebay.create("base.vdi", size="8M")
    drivebay.create("child.vdi", parent="base.vdi")
    with drivebay.open("child.vdi", writable=True) as disk:
        disk.write(5 << 20, b"x")
    done = subprocess.run(
        [sys.executable, ROOT / "examples/changed_since_snapshot.py", "child.vdi"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(5 << 20), str(1 << 20), "data"]


def test_every_link_in_the_documents_leads_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    missing = [
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not missing
