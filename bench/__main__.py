"""The command: ``python -m bench [--quick] [--only NAME]... [--no-append]``."""

from __future__ import annotations

import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.groups import GROUPS, measure_group
from bench.machine import machine_facts
from bench.peers import missing_tools
from bench.place import default_place, place_fact
from bench.plan import FULL, GIB, QUICK, TIB, Plan
from bench.report import Table, append
from bench.rounds import Results
from bench.verdict import verdict_table

WIDTH = 160  # of the tables in a file or a pipe
RECORD = Path(__file__).parent.parent / "BENCHMARKS.md"


def main(
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"One group, repeatable: {', '.join(GROUPS)}.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small images and short rounds, to try it out; not recorded.")
    ] = False,
    no_append: Annotated[bool, typer.Option("--no-append", help="Do not write to BENCHMARKS.md.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where the images lie during the run; in memory if there is room.")
    ] = None,
) -> None:
    """Compare drivebay with the NBD servers of QEMU and nbdkit on this machine."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    names = _known(only or list(GROUPS))
    _require_tools()
    signal.signal(signal.SIGTERM, _interrupt)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # qemu-storage-daemon 7.2 aborts at the end
    wanted = QUICK if quick else FULL
    place = folder or default_place(wanted.space)
    facts = (*machine_facts(), place_fact(place))
    results = Results()
    plan = _fitting(wanted, place, console)
    tables = [*_measure(names, plan, place, results, console), verdict_table(results)]
    _show(tables, facts, results, console)
    if not (quick or no_append):
        append(RECORD, facts, tables)
        console.print(f"Appended to {RECORD}")
    if results.failures:
        sys.exit(1)


def _known(names: list[str]) -> list[str]:
    if unknown := [name for name in names if name not in GROUPS]:
        raise typer.BadParameter(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    return names


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _require_tools() -> None:
    if missing := missing_tools():
        sys.exit(f"not installed: {', '.join(missing)}; run: make setup")


def _fitting(plan: Plan, place: Path, console: Console) -> Plan:
    """The plan, with smaller deep chains where the disk has no room for the planned ones."""
    free = shutil.disk_usage(place).free
    if free >= plan.space:
        return plan
    smaller = replace(plan, open_chain=TIB)
    if free < smaller.space:
        needed = smaller.space / GIB
        sys.exit(f"{place} has {free / GIB:.1f} GiB free, {needed:.1f} are needed; name another --folder")
    console.print(
        f"Left out: the chain of 16 TiB needs {plan.space / GIB:.1f} GiB free on {place}, there are "
        f"{free / GIB:.1f}. Chains of 1 TiB are opened instead."
    )
    return smaller


def _measure(
    names: Sequence[str], plan: Plan, place: Path, results: Results, console: Console
) -> list[Table]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tables = [measure_group(name, plan, place, results, progress) for name in names]
    return [table for table in tables if table is not None]


def _show(
    tables: Sequence[Table], facts: Sequence[tuple[str, str]], results: Results, console: Console
) -> None:
    for name, value in facts:
        console.print(f"{name}: {value}", highlight=False)
    for table in tables:
        console.print()
        table.show(console)
    for failure, times in results.failures.items():
        console.print(f"failed ({times} times): {failure}", style="red", markup=False)


if __name__ == "__main__":
    typer.run(main)
