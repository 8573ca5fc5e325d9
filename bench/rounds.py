"""Interleaved rounds: each round measures everything once, so that a slow minute slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from bench.errors import BenchError

Values = Mapping[str, float]


class Unit(Enum):
    """What a figure counts."""

    REQUESTS = "requests/s"
    MIB_PER_SECOND = "MiB/s"
    MILLISECONDS = "ms"
    MIB = "MiB"

    @property
    def is_rate(self) -> bool:
        """More is better, and ratios say something."""
        return self in (Unit.REQUESTS, Unit.MIB_PER_SECOND)


@dataclass(frozen=True)
class Case:
    """A row of a table. Each probe measures one server once: the figures by their column's name."""

    name: str
    unit: Unit
    probes: Mapping[str, Callable[[], Values]]


@dataclass
class Results:
    """Figures by case, column and round."""

    figures: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def add(self, case: str, number: int, values: Values) -> None:
        """Record what one probe measured in round ``number``."""
        for column, value in values.items():
            self.figures.setdefault((case, column), {})[number] = value

    def fail(self, what: str) -> None:
        """Count a failure; the same one in several rounds is one with a number."""
        self.failures[what] = self.failures.get(what, 0) + 1

    def median(self, case: str, column: str) -> float | None:
        """The median over the rounds; ``None`` if nothing was measured."""
        rounds = self.figures.get((case, column))
        return statistics.median(rounds.values()) if rounds else None

    def ratio(self, ours: tuple[str, str], theirs: tuple[str, str]) -> float | None:
        """The median of the ratios of each round in which both (case, column) pairs were measured."""
        one, other = self.figures.get(ours, {}), self.figures.get(theirs, {})
        ratios = [value / other[number] for number, value in one.items() if other.get(number)]
        return statistics.median(ratios) if ratios else None

    def columns(self, case: str) -> list[str]:
        """The columns that were measured for a case, in the order they came in."""
        return [column for name, column in self.figures if name == case]


def run_rounds(cases: Sequence[Case], rounds: int, results: Results, advance: Callable[[str], None]) -> None:
    """Measure all cases ``rounds`` times; a probe that fails is noted, and tried again in the next round.

    ``advance`` is called before each probe with what comes now.
    """
    for number in range(rounds):
        for case in cases:
            for server, probe in case.probes.items():
                advance(f"round {number + 1}: {case.name}, {server}")
                try:
                    results.add(case.name, number, probe())
                except (BenchError, OSError) as error:
                    results.fail(f"{case.name}, {server}: {error}")
