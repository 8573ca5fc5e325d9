"""The command: ``python -m fuzz [--seconds N] [--start N] [--format NAME]...``, or ``--replay FOLDER``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from fuzz import ROOT
from fuzz.campaign import Campaign
from fuzz.seeds import make_seeds
from fuzz.worker import replay

_FINDINGS = ROOT / "fuzz" / "findings"


def main(
    seconds: Annotated[int, typer.Option(help="How long to make attempts.")] = 300,
    start: Annotated[
        int | None, typer.Option(help="The first attempt's number; the clock's, if not given.")
    ] = None,
    format: Annotated[list[str] | None, typer.Option(help="Only this format, repeatable.")] = None,
    findings: Annotated[Path, typer.Option(help="Where findings are put.")] = _FINDINGS,
    replay_folder: Annotated[
        Path | None, typer.Option("--replay", help="Try a finding's folder again.")
    ] = None,
    top: Annotated[str, typer.Option(help="The image's name in that folder.")] = "",
) -> None:
    """Damage images of every format and use them; exit code 1 where something was found."""
    if replay_folder is not None:
        report = replay(replay_folder, top, replay_folder.name)
        print(report.finding or f"ended well: {report.outcome}")
        raise typer.Exit(bool(report.finding))
    first = int(time.time()) if start is None else start
    with tempfile.TemporaryDirectory(prefix="drivebay-fuzz-") as name:
        campaign = _prepared(Path(name), frozenset(format or ()), findings, first)
        campaign.run(seconds)
    _summary(campaign)
    raise typer.Exit(bool(campaign.findings))


def _prepared(folder: Path, formats: frozenset[str], findings: Path, start: int) -> Campaign:
    seeds = make_seeds(folder / "seeds", formats)
    print(f"{len(seeds)} seeds; attempts from number {start} on", flush=True)
    scratch = folder / "scratch"
    scratch.mkdir()
    findings.mkdir(parents=True, exist_ok=True)
    return Campaign(seeds, scratch, findings, start)


def _summary(campaign: Campaign) -> None:
    print(f"{campaign.outcomes.total()} attempts; they ended with:")
    for outcome, count in campaign.outcomes.most_common():
        print(f"  {count:8} {outcome}")
    for name, count in sorted(campaign.formats.items()):
        print(f"  {count:8} on {name}")
    print(f"{len(campaign.findings)} findings")


if __name__ == "__main__":
    typer.run(main)
