"""Rounds, ratios and verdicts of the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.depth import depth_name
from bench.errors import BenchError
from bench.groups import GROUPS
from bench.opening import OPEN, open_name
from bench.plan import FULL, GIB, QUICK, TIB
from bench.report import Table, append, figure, results_table
from bench.rounds import Case, Results, Unit, Values, run_rounds
from bench.throughput import random_name
from bench.verdict import targets, verdict_table

ROOT = Path(__file__).parent.parent.parent


def probe(name: str, values: list[float], seen: list[str]) -> Values:
    seen.append(name)
    return {name: values.pop(0)}


def test_rounds_interleave_the_servers() -> None:
    seen: list[str] = []
    ours, theirs = [10.0, 1.0, 30.0], [5.0, 1.0, 3.0]
    case = Case(
        "case",
        Unit.REQUESTS,
        {"drivebay": lambda: probe("drivebay", ours, seen), "peer": lambda: probe("peer", theirs, seen)},
    )
    results = Results()
    run_rounds([case], 3, results, print)
    assert seen == ["drivebay", "peer"] * 3
    assert results.median("case", "drivebay") == 10.0
    assert results.ratio(("case", "drivebay"), ("case", "peer")) == 2.0  # the median of 2, 1 and 10
    assert not results.failures


def test_a_failed_probe_is_told_and_leaves_its_round_out() -> None:
    results = Results()
    outcomes = iter([BenchError("it died"), None, BenchError("it died")])

    def flaky() -> Values:
        if error := next(outcomes):
            raise error
        return {"peer": 2.0}

    case = Case("case", Unit.REQUESTS, {"drivebay": lambda: {"drivebay": 6.0}, "peer": flaky})
    run_rounds([case], 3, results, print)
    assert results.failures == {"case, peer: it died": 2}
    assert results.ratio(("case", "drivebay"), ("case", "peer")) == 3.0


def test_ratio_without_a_common_round_is_none() -> None:
    results = Results()
    results.add("case", 0, {"drivebay": 1.0})
    results.add("case", 1, {"peer": 1.0})
    assert results.ratio(("case", "drivebay"), ("case", "peer")) is None
    assert results.median("other", "peer") is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, Unit.REQUESTS, "-"),
        (198_400.0, Unit.REQUESTS, "198k"),
        (1_840.0, Unit.REQUESTS, "1.8k"),
        (3258.4, Unit.MIB_PER_SECOND, "3,258"),
        (12.34, Unit.MILLISECONDS, "12.3"),
    ],
)
def test_figures_read_as_people_write_them(value: float | None, unit: Unit, text: str) -> None:
    assert figure(value, unit) == text


def test_table_of_rates_has_ratios_and_gaps() -> None:
    results = Results()
    results.add("vdi", 0, {"drivebay": 90_000.0, "qemu-nbd": 30_000.0})
    results.add("raw", 0, {"drivebay": 90_000.0, "qemu-nbd": 30_000.0, "nbdkit": 60_000.0})
    cases = [Case("vdi", Unit.REQUESTS, {}), Case("raw", Unit.REQUESTS, {})]
    table = results_table("Title", cases, results)
    assert list(table.columns)[1:4] == ["drivebay", "qemu-nbd", "nbdkit"]
    assert list(table.columns)[4:] == ["÷ qemu-nbd", "÷ nbdkit"]
    assert table.rows[0] == ["vdi", "90k", "30k", "-", "3.00", "-"]
    assert table.rows[1] == ["raw", "90k", "30k", "60k", "3.00", "1.50"]


def test_table_of_times_has_no_ratios() -> None:
    results = Results()
    results.add("1 GiB", 0, {"drivebay": 90.0, "qemu-nbd": 30.0})
    table = results_table("Title", [Case("1 GiB", Unit.MILLISECONDS, {})], results)
    assert table.columns == ["ms", "drivebay", "qemu-nbd"]


def test_runs_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "BENCHMARKS.md"
    path.write_text("# Benchmarks\n")
    for date in ("2026-01-01", "2026-01-02"):
        append(path, [("date", date), ("kernel", "Linux 6")], [Table("Speed", ["a", "b"], [["x", "1"]])])
    text = path.read_text()
    assert text.startswith("# Benchmarks\n\n## 2026-01-01\n\n* kernel: Linux 6\n")
    assert text.count("### Speed\n\n| a | b |\n| --- | --: |\n| x | 1 |\n") == 2


def test_verdicts_follow_the_bounds() -> None:
    results = Results()
    results.add(random_name("vdi", write=False, depth=32), 0, {"drivebay": 299.0, "qemu-nbd": 100.0})
    results.add(random_name("vdi", write=True, depth=32), 0, {"drivebay": 200.0, "qemu-nbd": 100.0})
    for layers, ours in ((1, 100.0), (64, 89.0)):
        results.add(depth_name(layers, 32), 0, {"drivebay": ours, "qemu-nbd": ours / layers})
    results.add(open_name(16 * TIB, 64), 0, {OPEN: 99.0})
    verdicts = {target.name: target.verdict for target in targets(results)}
    measured = {name: verdict for name, verdict in verdicts.items() if verdict != "not measured"}
    assert list(measured.values()) == ["missed", "met", "missed", "met"]
    assert ["VDI, random read" in name for name in measured] == [True, False, False, False]
    assert len(verdicts) > 20
    assert any("qemu-nbd, random read QD32, 64 layers to 1" in row[0] for row in verdict_table(results).rows)


def test_full_plan_measures_every_target_and_stays_within_ten_gib() -> None:
    assert {1, 64} <= set(FULL.chain_depths)
    assert (FULL.open_chain, max(FULL.open_depths)) == (16 * TIB, 64)
    assert QUICK.space < FULL.space < 10 * GIB


def test_every_group_is_explained() -> None:
    text = (ROOT / "BENCHMARKS.md").read_text()
    for name in GROUPS:
        assert f"\n| {name} |" in text
