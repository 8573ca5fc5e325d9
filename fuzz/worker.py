"""The process that makes attempts: it may die of them, and has bounds of time and memory."""

from __future__ import annotations

import functools
import gc
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, NoReturn

from fuzz.attempt import CANARY, ViolationError, attempt
from fuzz.mutation import damage, metadata_of
from fuzz.seeds import Seed

SECONDS = 20  # of the processor's time, for one attempt
_MEMORY = 768 << 20  # bytes beyond what the process has before its first attempt
FOLDER = "image"  # of the damaged image, in the scratch folder
_OUTSIDE = "outside/canary.raw"
_BESIDE = "zz-beside.raw"


class Job(NamedTuple):
    """One attempt to make: number ``number`` on ``seed``; the same ones do the same."""

    seed: Seed
    number: int

    @property
    def name(self) -> str:
        """For folders and people."""
        return f"{self.seed.name}-{self.number}"


class Report(NamedTuple):
    """How it ended; ``finding`` is a traceback, and empty where all was well."""

    outcome: str
    finding: str
    damages: list[str]


class _TooLongError(BaseException):
    """Not an Exception: nothing in the product may catch it."""


def _on_alarm(_number: int, _frame: object) -> NoReturn:
    raise _TooLongError


def work(jobs: Connection, scratch: Path) -> None:
    """Make the attempts that come through the pipe, in ``scratch``, until it closes."""
    bound()
    while (job := jobs.recv()) is not None:
        jobs.send(_try(job, scratch))


def bound() -> None:
    """From now on, an attempt has its time, and this process only so much more memory."""
    signal.signal(signal.SIGPROF, _on_alarm)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _try(job: Job, scratch: Path) -> Report:
    damages = build(job, scratch)
    return use(scratch / FOLDER / job.seed.top, job.name, damages)


def build(job: Job, scratch: Path) -> list[str]:
    """Put the damaged image of an attempt into ``scratch``; returns what was done to it."""
    chance = random.Random(job.name)
    folder = prepare(job.seed, scratch)
    path = _target(folder, job.seed, chance)
    return damage(path, _metadata(job.seed.folder / path.relative_to(folder)), _words(scratch), chance)


@functools.cache
def _metadata(golden: Path) -> list[int]:
    return metadata_of(golden.read_bytes())


def prepare(seed: Seed, scratch: Path) -> Path:
    """A fresh copy of the seed in ``scratch``, with canaries beside and outside of it."""
    for left in scratch.iterdir():
        shutil.rmtree(left)
    folder = scratch / FOLDER
    shutil.copytree(seed.folder, folder)
    (folder / _BESIDE).write_bytes(CANARY * 30_000)
    (scratch / "outside").mkdir()
    (scratch / _OUTSIDE).write_bytes(CANARY * 30_000)
    return folder


def _target(folder: Path, seed: Seed, chance: random.Random) -> Path:
    """The file to damage: the image itself, or one of its further files and parents."""
    top = folder / seed.top
    if chance.random() < 0.75:
        return chance.choice(_files(top)) if top.is_dir() else top
    return chance.choice([path for path in _files(folder) if path.name != _BESIDE])


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _words(scratch: Path) -> tuple[bytes, ...]:
    names = (
        f"../{_OUTSIDE}",
        str(scratch / _OUTSIDE),
        "../outside",
        "/dev/zero",
        "/etc/passwd",
        ".",
        "..",
        "",
    )
    texts = [name.encode() + end for name in names for end in (b"", b"\0", b'"')]
    wide = [name.encode("utf-16-le") for name in names]
    return (*texts, *wide, b"\xff\xfe", b"%s" * 8, b"RW 99999999999 FLAT ", b"-1", b"18446744073709551616")


def use(image: Path, name: str, damages: list[str]) -> Report:
    """One attempt, within its time; the same ``name`` does the same to the image."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    opened = _descriptors()
    try:
        outcome = attempt(image, random.Random(f"{name}: use"))
        if _descriptors() > opened and gc.collect() >= 0 and _descriptors() > opened:
            raise ViolationError("a file was left open")
        return Report(outcome, "", damages)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return Report(type(error).__name__, traceback.format_exc(), damages)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def replay(folder: Path, top: str, name: str) -> Report:
    """The attempt on a finding's files once more, in this process."""
    bound()
    with tempfile.TemporaryDirectory() as scratch:
        copy = prepare(Seed(name, "", folder, top), Path(scratch))
        return use(copy / top, name, [])
