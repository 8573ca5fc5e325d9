"""Power cuts: from a recorded run, every state that the image file may be in, and what must hold there.

What was written before the last completed sync is durable. Of what was written since, any subset may
be, each change torn at sectors of 512 bytes, and the file may have any of the sizes it was given.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drivebay.engine.disk import Disk
from drivebay.errors import StorageError
from drivebay.formats.vdi import FORMAT
from drivebay.model import Severity
from support.disks import open_disk, open_fd, open_layer, plain_source
from support.recording import Change, Event, Log
from support.shadow import ShadowDisk
from support.timeline import SECTOR, Timeline, step_over

_ALL = "all of it"
_NONE = "nothing of it"
_TORN = "a torn subset"


@dataclass
class Recording:
    """A run: the chain, the top's bytes before it, all that reached the file, and the guest's steps."""

    paths: Sequence[Path]
    before: bytes
    events: list[Event]
    timeline: Timeline


class State(NamedTuple):
    """The image file after a power cut behind ``cut`` events."""

    cut: int
    how: str
    image: bytearray


Script = Callable[["Guest"], None]


class Guest:
    """Does the steps of a script to a shadowed disk, and notes in the timeline when each ran."""

    def __init__(self, shadow: ShadowDisk, log: Log, timeline: Timeline) -> None:
        self._shadow = shadow
        self._log = log
        self._timeline = timeline

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        self._step(offset, len(data), fua, lambda: self._shadow.write(offset, data, fua=fua))

    def write_batch(self, requests: list[tuple[int, bytes]]) -> None:
        low = min(offset for offset, _ in requests)
        high = max(offset + len(data) for offset, data in requests)
        self._step(low, high - low, False, lambda: self._shadow.write_batch(requests))

    def zero(self, offset: int, length: int, *, unmap: bool = True, fua: bool = False) -> None:
        self._step(offset, length, fua, lambda: self._shadow.zero(offset, length, unmap=unmap, fua=fua))

    def discard(self, offset: int, length: int, *, fua: bool = False) -> None:
        self._step(offset, length, fua, lambda: self._shadow.discard(offset, length, fua=fua))

    def flush(self) -> None:
        self._step(0, 0, True, self._shadow.flush)

    def _step(self, offset: int, length: int, flushes: bool, step: Callable[[], object]) -> None:
        start = len(self._log.events)
        step()
        done = step_over(self._shadow.content, offset, length, start, len(self._log.events))
        self._timeline.steps.append(dataclasses.replace(done, flushes=flushes))


def record(paths: Sequence[Path], content: bytearray, script: Script) -> Recording:
    """Run ``script`` on the chain."""
    before = paths[0].read_bytes()
    log = Log()
    timeline = Timeline(content)
    with open_disk(paths, source=log.source) as disk:
        script(Guest(ShadowDisk(disk, content), log, timeline))
        start = len(log.events)
    closing = step_over(content, 0, 0, start, len(log.events))
    timeline.steps.append(dataclasses.replace(closing, flushes=True))
    assert {event.path for event in log.events} == {str(paths[0])}
    return Recording(paths, before, log.events, timeline)


def crash_states(recording: Recording, seed: int, torn: int) -> Iterator[State]:
    """For every prefix of the events: all of the open interval, nothing of it, and ``torn`` subsets."""
    draw = random.Random(seed)
    numbers = np.random.default_rng(seed)
    durable = bytearray(recording.before)
    pending: list[Event] = []
    events = _in_sectors(recording.before, recording.events)
    for cut in range(len(events) + 1):
        if cut and events[cut - 1].change is Change.SYNC:
            durable = _applied(durable, pending)
            pending = []
        elif cut:
            pending.append(events[cut - 1])
        yield State(cut, _ALL, _applied(durable, pending))
        if pending:
            yield State(cut, _NONE, bytearray(durable))
            for _ in range(torn):
                yield State(cut, _TORN, _torn(durable, pending, draw, numbers))


def _in_sectors(before: bytes, events: Sequence[Event]) -> list[Event]:
    """The same events over whole sectors: hosts change a part of a sector by writing all of it."""
    image = bytearray(before)
    result = []
    for event in events:
        image = _applied(image, [event])
        start, end = event.offset, event.offset + event.length
        if event.change in (Change.WRITE, Change.ZERO) and (start % SECTOR or end % SECTOR):
            start, end = start - start % SECTOR, min(end + -end % SECTOR, len(image))
            event = Event(Change.WRITE, event.path, start, end - start, bytes(image[start:end]))
        result.append(event)
    return result


def _applied(image: bytearray, events: Sequence[Event]) -> bytearray:
    result = bytearray(image)
    for event in events:
        end = event.offset + event.length
        result.extend(bytes(max(end - len(result), 0)))
        if event.change is not Change.EXTEND:
            result[event.offset : end] = event.data or bytes(event.length)
    return result


def _torn(
    image: bytearray, events: Sequence[Event], draw: random.Random, numbers: np.random.Generator
) -> bytearray:
    sizes = [len(image)] + [event.offset + event.length for event in events]
    most = max(sizes)
    size = draw.choice([size for size in sizes if size >= len(image)])
    result = bytearray(image).ljust(most, b"\0")
    keep = draw.choice((0.2, 0.5, 0.8))
    for event in events:
        if event.change is Change.EXTEND or draw.random() >= keep:
            continue
        _tear(result, event, draw, numbers)
    del result[size:]
    return result


def _tear(image: bytearray, event: Event, draw: random.Random, numbers: np.random.Generator) -> None:
    count = -(-event.length // SECTOR)
    kind = draw.randrange(3)
    border = draw.randrange(count + 1)
    chosen: npt.NDArray[np.bool_]
    if kind == 0:
        chosen = np.ones(count, np.bool_)
    elif kind == 1:
        chosen = (np.arange(count) < border) == draw.choice((True, False))
    else:
        chosen = numbers.random(count) < draw.random()
    data = event.data or bytes(event.length)
    for low, high in _runs(chosen):
        part = data[low * SECTOR : high * SECTOR]
        start = event.offset + low * SECTOR
        image[start : start + len(part)] = part


def _runs(chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(np.int8), [0]))))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


class Examiner:
    """Opens crash states as a fresh process would, and says what is wrong with them."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.examined = 0

    def damage(self, state: State) -> str | None:
        """What the power cut has broken; ``None`` for no damage."""
        self.examined += 1
        try:
            found = self._findings(state) or self._contents(state)
        except StorageError as error:
            found = str(error)
        return f"after {state.cut} events, {state.how}: {found}" if found else None

    def write_again(self, state: State) -> None:
        """The image of a crash state goes on working: writes, discards and reopens without damage."""
        with self._open(state, writable=True) as (disk, fd):
            content = bytearray(disk.read(0, disk.size))
            shadow = ShadowDisk(disk, content)
            step = len(content) // 7
            for number, offset in enumerate(range(0, len(content) - 3000, step)):
                shadow.write(offset, bytes([number + 1]) * 3000)
            shadow.discard(step, len(content) // 2)
            shadow.flush()
            shadow.write(len(content) // 2, b"again" * 1000)
            shadow.verify()
            disk.flush()
            image = bytearray(os.pread(fd, os.fstat(fd).st_size, 0))
        with self._open(State(0, "", image), writable=False) as (disk, _):
            ShadowDisk(disk, content).verify()
        assert self._findings(State(0, "", image)) is None

    def _open(self, state: State, *, writable: bool) -> _OpenState:
        return _OpenState(self._recording.paths, state.image, writable=writable)

    def _findings(self, state: State) -> str | None:
        gate = _Bytes(state.image, str(self._recording.paths[0]))
        assert FORMAT.check is not None
        bad = [
            finding.message
            for finding in FORMAT.check(gate, FORMAT.open(gate))
            if finding.severity is Severity.ERROR or finding.code == "counter-low"
        ]
        return "; ".join(bad) or None

    def _contents(self, state: State) -> str | None:
        with self._open(state, writable=False) as (disk, _):
            return self._recording.timeline.fault(disk.read(0, disk.size), state.cut)


class _OpenState:
    """A crash state as a disk, in memory."""

    def __init__(self, paths: Sequence[Path], image: bytearray, *, writable: bool) -> None:
        self._fd = os.memfd_create("crash state")
        os.pwrite(self._fd, image, 0)
        top = open_fd(os.dup(self._fd), str(paths[0]), writable=writable, source=plain_source)
        parents = [open_layer(path) for path in paths[1:]]
        self._disk = Disk([top, *parents], writable=writable)

    def __enter__(self) -> tuple[Disk, int]:
        return self._disk, self._fd

    def __exit__(self, *_error: object) -> None:
        self._disk.close()
        os.close(self._fd)


class _Bytes:
    """The `Files` gate over bytes."""

    def __init__(self, image: bytearray, path: str) -> None:
        self._image = image
        self.path = path
        self.size = len(image)

    def read(self, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        return bytes(self._image[offset : offset + length])


def damages(recording: Recording, seed: int, torn: int) -> Iterator[str]:
    """All damage in the crash states of a run."""
    examiner = Examiner(recording)
    for state in crash_states(recording, seed, torn):
        found = examiner.damage(state)
        if found:
            yield found
