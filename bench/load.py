"""Loads: request streams that are made once and sent, the very same bytes, to every server."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bench import wire

READS_MADE = 1 << 16  # requests in a stream of reads (28 bytes each)
WRITES_MADE = 128 << 20  # bytes of payload in a stream of writes


@dataclass(frozen=True)
class Load:
    """A stream of ``count`` requests of ``length`` bytes, ``depth`` of them always in flight.

    ``requests`` holds ``count + depth`` encoded requests of ``request_size`` bytes, the last ``depth`` being
    the first ones again, so that no run of them needs to be put together from two pieces.
    """

    write: bool
    length: int
    depth: int
    count: int
    request_size: int
    requests: memoryview


@cache
def random_load(*, write: bool, length: int, depth: int, size: int, seed: int = 2) -> Load:
    """Aligned random offsets on a disk of ``size`` bytes, the same ones for the same seed."""
    count = WRITES_MADE // length if write else READS_MADE
    blocks = np.random.default_rng(seed).integers(0, size // length, count, dtype=np.uint64)
    return _load(blocks * np.uint64(length), write=write, length=length, depth=depth)


@cache
def allocating_load(*, length: int, depth: int, stride: int, size: int, seed: int = 3) -> Load:
    """A write at the beginning of each ``stride`` of a disk of ``size`` bytes, in mixed order."""
    places = np.random.default_rng(seed).permutation(size // stride).astype(np.uint64)
    return _load(places * np.uint64(stride), write=True, length=length, depth=depth)


@cache
def sequential_load(*, write: bool, length: int, depth: int, size: int) -> Load:
    """One request behind the other; writes go round and round the first 128 MiB of the disk."""
    count = min(size, WRITES_MADE) // length if write else size // length
    offsets = np.arange(count, dtype=np.uint64) * np.uint64(length)
    return _load(offsets, write=write, length=length, depth=depth)


def _load(offsets: NDArray[np.uint64], *, write: bool, length: int, depth: int) -> Load:
    around = np.concatenate([offsets, offsets[:depth]])
    stream = _encode(around, write=write, length=length)
    return Load(write, length, depth, len(offsets), stream.dtype.itemsize, memoryview(stream.tobytes()))


def _encode(offsets: NDArray[np.uint64], *, write: bool, length: int) -> NDArray[np.void]:
    fields = [(name, wire.REQUEST_DTYPE[name]) for name in wire.REQUEST_DTYPE.names or ()]
    payload = [("payload", np.dtype((">u8", (length // wire.PAGE, wire.PAGE // 8))))] if write else []
    stream = np.zeros(len(offsets), dtype=np.dtype(fields + payload))
    first = offsets // np.uint64(wire.PAGE)
    stream["magic"] = wire.REQUEST_MAGIC
    stream["type"] = wire.WRITE if write else wire.READ
    stream["cookie"] = first
    stream["offset"] = offsets
    stream["length"] = length
    if write:
        numbers = first[:, None] + np.arange(length // wire.PAGE, dtype=np.uint64)
        stream["payload"] = numbers[:, :, None]
    return stream
