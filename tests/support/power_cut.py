"""From a log of changes, every state that the files of an image may be in after a power cut.

What was written before the last completed sync of a file is durable. Of what was written to it since,
any subset may be, each change torn at sectors of 512 bytes, and the file may have any of the sizes that
it was given.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from support.recording import Change, Event
from support.timeline import SECTOR

ALL = "all of it"
NONE = "nothing of it"
TORN = "a torn subset"


class State(NamedTuple):
    """The image's files, by path, after a power cut behind ``cut`` events."""

    cut: int
    how: str
    files: Mapping[str, bytearray]


def crash_states(
    before: Mapping[str, bytes], recorded: Sequence[Event], seed: int, torn: int, most: int = 1 << 30
) -> Iterator[State]:
    """For every prefix of the events: all of the open interval, nothing of it, and ``torn`` subsets.

    Of more prefixes than ``most``, that many by chance, and those around each sync.
    """
    draw = random.Random(seed)
    numbers = np.random.default_rng(seed)
    cuts = _cuts(recorded, draw, most)
    durable = {path: bytearray(data) for path, data in before.items()}
    pending: dict[str, list[Event]] = {path: [] for path in before}
    for cut, event in enumerate([None, *_in_sectors(before, recorded)]):
        if event is not None and event.change is Change.SYNC:
            durable[event.path] = _applied(durable[event.path], pending[event.path])
            pending[event.path] = []
        elif event is not None:
            pending[event.path].append(event)
        if cut not in cuts:
            continue
        yield State(cut, ALL, {path: _applied(durable[path], pending[path]) for path in durable})
        if any(pending.values()):
            yield State(cut, NONE, {path: bytearray(data) for path, data in durable.items()})
            for _ in range(torn):
                files = {path: _torn(durable[path], pending[path], draw, numbers) for path in durable}
                yield State(cut, TORN, files)


def _cuts(events: Sequence[Event], draw: random.Random, most: int) -> set[int]:
    """Behind how many events the power is cut."""
    every = range(len(events) + 1)
    if len(every) <= most:
        return set(every)
    syncs = [number for number, event in enumerate(events) if event.change is Change.SYNC]
    return {*draw.sample(every, most), *syncs, *(number + 1 for number in syncs)}


def _in_sectors(before: Mapping[str, bytes], events: Sequence[Event]) -> list[Event]:
    """The same events over whole sectors: hosts change a part of a sector by writing all of it."""
    images = {path: bytearray(data) for path, data in before.items()}
    result = []
    for event in events:
        image = images[event.path]
        _apply(image, event)
        start, end = event.offset, event.offset + event.length
        if event.change in (Change.WRITE, Change.ZERO) and (start % SECTOR or end % SECTOR):
            start, end = start - start % SECTOR, min(end + -end % SECTOR, len(image))
            event = Event(Change.WRITE, event.path, start, end - start, bytes(image[start:end]))
        result.append(event)
    return result


def _applied(image: bytearray, events: Sequence[Event]) -> bytearray:
    result = bytearray(image)
    for event in events:
        _apply(result, event)
    return result


def _apply(image: bytearray, event: Event) -> None:
    end = event.offset + event.length
    if event.change is Change.SHORTEN:
        del image[end:]
    image.extend(bytes(max(end - len(image), 0)))
    if event.change in (Change.WRITE, Change.ZERO):
        image[event.offset : end] = event.data or bytes(event.length)


def _torn(
    image: bytearray, events: Sequence[Event], draw: random.Random, numbers: np.random.Generator
) -> bytearray:
    sizes = [len(image)] + [event.offset + event.length for event in events]
    most = max(sizes)
    least = min([len(image), *(event.length for event in events if event.change is Change.SHORTEN)])
    size = draw.choice([size for size in sizes if size >= least])
    result = bytearray(image).ljust(most, b"\0")
    keep = draw.choice((0.2, 0.5, 0.8))
    for event in events:
        if event.change in (Change.EXTEND, Change.SHORTEN) or draw.random() >= keep:
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
