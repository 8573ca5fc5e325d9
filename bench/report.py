"""Tables: built once as text, shown on the terminal, and written down as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.table
from rich.console import Console

from bench.peers import DRIVEBAY
from bench.rounds import Case, Results, Unit


@dataclass(frozen=True)
class Table:
    """A titled table of text; the first column is aligned left, the others right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def show(self, console: Console) -> None:
        """Print it."""
        table = rich.table.Table(title=self.title, title_justify="left")
        for at, column in enumerate(self.columns):
            table.add_column(column, justify="right" if at else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """The same as Markdown."""
        lines = [self.columns, ["---", *["--:"] * (len(self.columns) - 1)], *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{body}\n"


def figure(value: float | None, unit: Unit) -> str:
    """A value as people read it: three digits or so."""
    if value is None:
        return "-"
    if unit is Unit.REQUESTS:
        return f"{value / 1000:.{0 if value >= 20_000 else 1}f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def results_table(title: str, cases: Sequence[Case], results: Results) -> Table:
    """Medians by server, and for rates drivebay's figure divided by each peer's ("÷ peer")."""
    columns = list(dict.fromkeys(column for case in cases for column in results.columns(case.name)))
    against = _compared(cases, columns)
    rows = [_row(case, columns, against, results) for case in cases]
    head = [cases[0].unit.value if len({case.unit for case in cases}) == 1 else "requests/s or MiB/s"]
    return Table(title, [*head, *columns, *(f"÷ {peer}" for peer in against)], rows)


def _compared(cases: Sequence[Case], columns: Sequence[str]) -> list[str]:
    rates = all(case.unit.is_rate for case in cases)
    return (
        [column for column in columns if column != DRIVEBAY.name]
        if rates and DRIVEBAY.name in columns
        else []
    )


def _row(case: Case, columns: Sequence[str], against: Sequence[str], results: Results) -> list[str]:
    medians = [figure(results.median(case.name, column), case.unit) for column in columns]
    ratios = [results.ratio((case.name, DRIVEBAY.name), (case.name, peer)) for peer in against]
    return [case.name, *medians, *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios)]


def append(path: Path, facts: Sequence[tuple[str, str]], tables: Sequence[Table]) -> None:
    """Write a run below the earlier ones; the first fact, its date, is the heading."""
    listed = "\n".join(f"* {name}: {value}" for name, value in facts[1:])
    body = "\n".join(table.markdown() for table in tables)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n## {facts[0][1]}\n\n{listed}\n\n{body}")
