"""A disk in a bytearray with the engine's interface, for tests of what serves disks.

``states`` marks 4096-byte blocks that are not data; ``later`` makes the batch forms answer LATER, and
``failure`` is raised by every blocking form while it is set.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from drivebay.engine.batch import Outcome
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode, Extent, ExtentState

BLOCK = 4096


class MemoryDisk:
    """``size`` bytes, writable unless said otherwise. Starts unallocated."""

    def __init__(self, size: int, *, writable: bool = True) -> None:
        self.size = size
        self.writable = writable
        self.cache = CacheMode.WRITEBACK
        self.depth = 1
        self.block_size = BLOCK
        self.data = bytearray(size)
        self.states = [ExtentState.UNALLOCATED] * -(-size // BLOCK)
        self.later = False
        self.fast_zero = True
        self.due = False
        self.failure: StorageError | None = None
        self.calls: list[str] = []
        self.gate = threading.Event()  # the blocking forms wait for it
        self.gate.set()

    def _enter(self, call: str, offset: int = 0, length: int = 0) -> None:
        self.calls.append(call)
        self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if offset + length > self.size:
            raise StorageError(ErrorKind.RANGE, "out of range")

    def _mark(self, offset: int, length: int, state: ExtentState) -> None:
        for index in range(offset // BLOCK, -(-(offset + length) // BLOCK)):
            self.states[index] = state

    def read(self, offset: int, length: int) -> bytes:
        self._enter("read", offset, length)
        return bytes(self.data[offset : offset + length])

    def read_into(self, offset: int, view: memoryview) -> None:
        view[:] = self.read(offset, len(view))

    def write(self, offset: int, data: bytes | memoryview, *, fua: bool = False) -> None:
        self._enter("write fua" if fua else "write", offset, len(data))
        self.data[offset : offset + len(data)] = data
        self._mark(offset, len(data), ExtentState.DATA)

    def zero(self, offset: int, length: int, *, unmap: bool = True, fua: bool = False) -> None:
        self._enter(f"zero {unmap=} {fua=}", offset, length)
        self.data[offset : offset + length] = bytes(length)
        self._mark(offset, length, ExtentState.ZERO if unmap else ExtentState.DATA)

    def discard(self, offset: int, length: int, *, fua: bool = False) -> None:
        self._enter(f"discard {fua=}", offset, length)
        self.data[offset : offset + length] = bytes(length)
        self._mark(offset, length, ExtentState.UNALLOCATED)

    def flush(self) -> None:
        self._enter("flush")

    def zero_is_fast(self, offset: int, length: int) -> bool:
        del offset, length
        return self.fast_zero

    def prefetch(self, offset: int, length: int) -> None:
        self._enter("prefetch", offset, length)

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        self._enter("extents")
        end = self.size if length is None else offset + length
        while offset < end:
            index = offset // BLOCK
            state = self.states[index]
            while index < len(self.states) and self.states[index] is state:
                index += 1
            stop = min(index * BLOCK, end)
            depth = None if state is ExtentState.UNALLOCATED else 0
            yield Extent(offset, stop - offset, state, depth)
            offset = stop

    def read_batch(self, requests: Sequence[tuple[int, memoryview]]) -> list[Outcome]:
        return [self._read_now(offset, view) for offset, view in requests]

    def _read_now(self, offset: int, view: memoryview) -> Outcome:
        end = offset + len(view)
        if self.later or end > self.size:
            return Outcome.LATER
        blocks = self.states[offset // BLOCK : -(-end // BLOCK)]
        if all(state is not ExtentState.DATA for state in blocks):
            return Outcome.ZERO
        view[:] = self.data[offset:end]
        return Outcome.DONE

    def write_batch(self, requests: Sequence[tuple[int, memoryview]]) -> list[Outcome]:
        return [self._write_now(offset, view) for offset, view in requests]

    def _write_now(self, offset: int, view: memoryview) -> Outcome:
        end = offset + len(view)
        if self.later or end > self.size or not self.writable:
            return Outcome.LATER
        self.data[offset:end] = view
        self._mark(offset, len(view), ExtentState.DATA)
        return Outcome.DONE

    def commit_due(self) -> bool:
        return self.due
