"""What a disk has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DiskStats:
    """Counters since the disk was opened; bytes where the name says so.

    Threads count without a lock: read them as figures, not as proofs.
    """

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0
    zeros: int = 0
    discards: int = 0
    flushes: int = 0
    commits: int = 0
    copy_ups: int = 0
    map_bytes: int = 0
