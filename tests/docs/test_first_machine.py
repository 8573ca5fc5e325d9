"""The session of the guide to a first machine: its very commands, on real guests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay
from drivebay.machines.kinds import KINDS

GUIDE = (Path(__file__).parents[2] / "docs/guide/first-machine.md").read_text()
SCRIPT = "\n".join(re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
TIMEOUT = 900

pytestmark = [pytest.mark.xdist_group("guest"), pytest.mark.timeout(TIMEOUT + 60)]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folders = {"DRIVEBAY_HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder / "sockets")}
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | folders | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """The working folder; machines that still run at the end are killed."""
    with tempfile.TemporaryDirectory(prefix="db-") as name:
        Path(name, "sockets").mkdir(mode=0o700)
        yield Path(name)
        listed = run(Path(name), "drivebay", "machine", "list", "--json")
        with contextlib.suppress(ValueError):
            for machine in json.loads(listed.stdout):
                run(Path(name), "drivebay", "machine", "kill", machine["uuid"], "--yes")


def test_a_disk_on_every_kind_of_controller(folder: Path) -> None:
    done = run(folder, "bash", "-e", "-u", "-o", "pipefail", "-c", SCRIPT)
    logs = "".join(path.read_text() for path in folder.glob("home/machines/*/serial.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    for kind in KINDS:
        slot = f"{kind}:0:0"
        image = folder / ("floppy.img" if kind == "I82078" else f"{kind}.vdi")
        with drivebay.open(image) as disk:
            assert disk.read(2000 * 512, 512).rstrip(b"\0").decode() == f"the guest wrote to {slot}\n"
            size = disk.size
        (seen,) = re.findall(rf"@@disk {re.escape(slot)} (\S+) (\d+)", done.stdout)
        assert int(seen[1]) == size or kind == "I82078"  # Linux looks at a floppy when it is opened
        assert done.stdout.count(f"written and read: {slot}") == 1
    refusals = re.findall(r"error: QEMU has no (\w+)", done.stderr)
    assert len(refusals) == 1
    assert "it names the closest kind, and --substitute" in done.stdout
