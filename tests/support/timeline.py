"""What a disk may contain after its host failed: each sector's flushed content, or what came after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SECTOR = 512
Rows = npt.NDArray[np.uint64]  # words, as they are compared faster than bytes
Mask = npt.NDArray[np.bool_]


def rows_of(content: bytes | bytearray) -> Rows:
    """The content as an array with a row for each sector; a copy."""
    return np.frombuffer(bytes(content), np.uint64).reshape(-1, SECTOR // 8)


@dataclass(eq=False)
class Step:
    """A step that ran from time ``start`` to ``end``; ``rows`` is what its sectors then hold.

    Where it failed, each of them holds that or what it held before. ``flushes`` tells that all that
    was done is durable when it has succeeded.
    """

    first: int
    rows: Rows
    start: int
    end: int
    flushes: bool = False
    succeeded: bool = True

    @property
    def window(self) -> slice:
        """The step's sectors."""
        return slice(self.first, self.first + len(self.rows))


def step_over(content: bytes | bytearray, offset: int, length: int, start: int, end: int) -> Step:
    """A step over a range of a disk that is ``content`` after it."""
    first = offset // SECTOR
    last = -(-(offset + length) // SECTOR) if length else first
    return Step(first, rows_of(content[first * SECTOR : last * SECTOR]), start, end)


class Timeline:
    """The steps that were done to a disk, in order. Time is any number that grows."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._initial = rows_of(content)
        self._latest = (0, self._initial)  # of `_after`
        self.steps: list[Step] = []

    def fault(self, found: bytes | bytearray, time: int) -> str | None:
        """What is wrong with a disk whose host failed at ``time``; ``None`` for nothing.

        A sector holds what it held at the end of the last flush, or what a later step left there, or
        what a failed step may have left that no later one had overwritten by that flush.
        """
        started = [step for step in self.steps if step.start < time or step.end <= time]
        flushes = [i + 1 for i, s in enumerate(started) if s.flushes and s.succeeded and s.end <= time]
        flushed = max(flushes, default=0)
        rows = rows_of(found)
        wrong = (rows != self._after(flushed)).any(axis=1)
        for number, step in enumerate(started):
            if wrong.any() and (number >= flushed or not step.succeeded):
                same = (rows[step.window] == step.rows).all(axis=1)
                wrong[step.window] &= ~(same & _not_overwritten(step, started[number + 1 : flushed]))
        return _describe(wrong, rows)

    def _after(self, count: int) -> Rows:
        """The content after so many steps; most questions are about the same number as the last one."""
        if self._latest[0] != count:
            rows = self._initial.copy()
            for step in self.steps[:count]:
                if step.succeeded:
                    rows[step.window] = step.rows
            self._latest = count, rows
        return self._latest[1]


def _not_overwritten(step: Step, later: list[Step]) -> Mask:
    mask = np.ones(len(step.rows), np.bool_)
    for other in later:
        if other.succeeded:
            low = max(other.window.start, step.first) - step.first
            mask[low : max(other.window.stop - step.first, 0)] = False
    return mask


def _describe(wrong: Mask, rows: Rows) -> str | None:
    if not wrong.any():
        return None
    sector = int(np.flatnonzero(wrong)[0])
    begin = rows[sector][:1].tobytes().hex()
    return f"{int(wrong.sum())} sectors are wrong, the first is {sector}: it begins with {begin}"
