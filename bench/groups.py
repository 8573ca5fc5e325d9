"""The groups of cases that ``--only`` names, and how one is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from bench.depth import depth_cases
from bench.errors import BenchError
from bench.formats import format_cases
from bench.images import raw_disk, vdi_copy
from bench.memory import memory_cases
from bench.opening import open_cases
from bench.peers import Image
from bench.plan import Plan
from bench.report import Table, results_table
from bench.rounds import Case, Results, run_rounds
from bench.throughput import ceiling_cases, random_cases, sequential_cases, servers, structured_cases
from drivebay.errors import StorageError


@dataclass(frozen=True)
class Group:
    """A table of the report: ``cases`` makes the images in a folder and returns what is to be measured."""

    title: str
    cases: Callable[[Path, Plan], list[Case]]


def _client(folder: Path, plan: Plan) -> list[Case]:
    return ceiling_cases(Image(folder, "none", plan.disk), plan)


def _vdi(folder: Path, plan: Plan) -> list[Case]:
    return random_cases("vdi", servers(vdi_copy(raw_disk(folder, plan.disk))), plan)


def _raw(folder: Path, plan: Plan) -> list[Case]:
    return random_cases("raw", servers(raw_disk(folder, plan.disk)), plan)


def _sequential(folder: Path, plan: Plan) -> list[Case]:
    raw = raw_disk(folder, plan.disk)
    vdi = sequential_cases("vdi", servers(vdi_copy(raw)), plan)
    return [*vdi, *sequential_cases("raw", servers(raw), plan)]


def _structured(folder: Path, plan: Plan) -> list[Case]:
    return structured_cases(vdi_copy(raw_disk(folder, plan.disk)), plan)


def _memory(folder: Path, _plan: Plan) -> list[Case]:
    return memory_cases(folder)


GROUPS: dict[str, Group] = {
    "client": Group(
        "The client's ceiling: a server that does nothing; 4 KiB random, 1 MiB sequential", _client
    ),
    "vdi": Group("VDI, dynamic, all blocks allocated; 4 KiB", _vdi),
    "raw": Group("Raw file; 4 KiB", _raw),
    "sequential": Group("Sequential; 1 MiB", _sequential),
    "structured": Group("With structured replies, which QEMU asks for as a client; 4 KiB", _structured),
    "depth": Group(
        "Chains, data spread over the layers: drivebay on VDI, the others on QCOW2; 4 KiB", depth_cases
    ),
    "formats": Group(
        "Each format that QEMU writes, a copy of one file in each; 4 KiB, one write into each 2 MiB",
        format_cases,
    ),
    "open": Group("Open time: VDI; where there are layers, qemu-nbd opens QCOW2", open_cases),
    "memory": Group("Memory: growth from a disk of 1 GiB to one of 1 TiB, all of the map used", _memory),
}


def measure_group(name: str, plan: Plan, place: Path, results: Results, progress: Progress) -> Table | None:
    """Make the group's images below ``place``, measure, remove them; ``None`` if they can't be made."""
    group = GROUPS[name]
    task = progress.add_task(f"{name}: making images", total=None)
    with tempfile.TemporaryDirectory(prefix="drivebay-bench-", dir=place) as folder:
        try:
            cases = group.cases(Path(folder), plan)
        except (BenchError, StorageError, OSError) as error:
            results.fail(f"{name}: making images: {error}")
            return None
        progress.update(task, total=plan.rounds * sum(len(case.probes) for case in cases), completed=-1)
        run_rounds(
            cases,
            plan.rounds,
            results,
            lambda now: progress.update(task, advance=1, description=now),
        )
    progress.remove_task(task)
    return results_table(group.title, cases, results)
