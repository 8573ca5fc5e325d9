"""What is offered: a disk under a name, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import time

from drivebay.engine.disk import Disk
from drivebay.errors import StorageError
from drivebay.exports.gate import Gate


@dataclass(slots=True, eq=False)
class Faults:
    """Requests that failed by no fault of the client's: how many, the last one, and when that was.

    ``when`` is in seconds since the epoch. Threads count without a lock: a figure, not a proof.
    """

    count: int = 0
    last: StorageError | None = None
    when: float = 0.0

    def note(self, error: StorageError) -> None:
        """One more."""
        self.count += 1
        self.last, self.when = error, time()


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """``disk`` offered as ``name``; ``description`` is shown to people who list the exports.

    Without ``discard`` clients can't give space back. ``gate`` may let requests wait, ``faults`` counts
    those that failed.
    """

    disk: Disk
    name: str = ""
    description: str = ""
    read_only: bool = False
    discard: bool = True
    gate: Gate = field(default_factory=Gate)
    faults: Faults = field(default_factory=Faults)

    @property
    def writable(self) -> bool:
        """Whether clients may change the disk."""
        return self.disk.writable and not self.read_only
