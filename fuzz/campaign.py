"""Many attempts, each in a process that may die of it; what is found is kept with all its files."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from fuzz.seeds import Seed
from fuzz.worker import FOLDER, SECONDS, Job, Report, build, work

_HARD_LIMIT = 10 * SECONDS  # by the clock: for an attempt that waits, or doesn't hear its alarm
_ATTEMPTS_EACH = 300  # by one process: so that what it leaks doesn't count against a later attempt
_NOTE = "finding.txt"


class Campaign:
    """Attempts on ``seeds``: number ``start`` and on. Findings are put into ``keep``."""

    def __init__(self, seeds: Sequence[Seed], scratch: Path, keep: Path, start: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.formats: Counter[str] = Counter()
        self.findings: list[Path] = []
        self._seeds: dict[str, list[Seed]] = {}
        for seed in seeds:
            self._seeds.setdefault(seed.format, []).append(seed)
        self._scratch = scratch
        self._keep = keep
        self._start = start

    def run(self, seconds: float) -> None:
        """Make attempts for so long."""
        end = time.monotonic() + seconds
        jobs = self._jobs()
        while time.monotonic() < end:
            self._run_process(jobs, end)

    def _jobs(self) -> Iterator[Job]:
        """Each format has the same share, however many seeds it has."""
        number = self._start
        while True:
            chance = random.Random(f"job {number}")
            yield Job(chance.choice(self._seeds[chance.choice(sorted(self._seeds))]), number)
            number += 1

    def _run_process(self, jobs: Iterator[Job], end: float) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._scratch), daemon=True)
        process.start()
        theirs.close()
        try:
            for _ in range(_ATTEMPTS_EACH):
                job = next(jobs)
                if not self._attempt(job, ours, process) or time.monotonic() > end:
                    break
        finally:
            process.kill()
            process.join()
            ours.close()

    def _attempt(self, job: Job, pipe: Connection, process: SpawnProcess) -> bool:
        """Whether the process can go on."""
        report = _ask(pipe, job)
        if report is None:
            process.join(1)
            how = (
                f"hung for {_HARD_LIMIT} seconds" if process.is_alive() else f"ended with {process.exitcode}"
            )
            report = Report("died", f"the process {how}", [])
        self.outcomes[report.outcome] += 1
        self.formats[job.seed.format] += 1
        if report.finding:
            self._found(job, report)
        return not report.finding

    def _found(self, job: Job, report: Report) -> None:
        place = self._keep / job.name
        shutil.rmtree(place, ignore_errors=True)
        damages = build(job, self._scratch)
        shutil.copytree(self._scratch / FOLDER, place)
        command = f"{Path(sys.executable).name} -m fuzz --replay {place} --top {job.seed.top}"
        note = [
            f"seed {job.seed.name}, attempt {job.number}",
            f"again: {command}",
            *damages,
            "",
            report.finding,
        ]
        (place / _NOTE).write_text("\n".join(note))
        self.findings.append(place)
        last = (report.finding.strip().splitlines() or [""])[-1]
        print(f"FOUND {place}: {last}", flush=True)


def _ask(pipe: Connection, job: Job) -> Report | None:
    try:
        pipe.send(job)
        if pipe.poll(_HARD_LIMIT):
            report: Report = pipe.recv()
            return report
    except (EOFError, OSError):
        pass
    return None
