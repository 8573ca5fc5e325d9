"""Where and with what was measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

from bench.peers import DRIVEBAY, PEERS


def machine_facts() -> list[tuple[str, str]]:
    """Date, machine and versions, as (name, value) in the order they are shown."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return [
        ("date", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("machine", f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"),
        ("load before the run", f"{os.getloadavg()[0]:.1f} (should be near 0)"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        *((server.name, _first_line(*server.version)) for server in (DRIVEBAY, *PEERS)),
        ("commit", _first_line("git", "describe", "--always", "--dirty")),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    return (done.stdout.strip() or "unknown").splitlines()[0]
