"""Where the images lie while they are measured."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_MEMINFO = Path("/proc/meminfo")


def default_place(space: int) -> Path:
    """A file system in memory, if images of ``space`` bytes leave half of it free; else the temp folder.

    On a disk's file system, the host's own work on each write (journal, page accounting, writeback) can be
    many times what a server does: then what is measured is the file system.
    """
    fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= space
    return _MEMORY if fits and available_memory() >= 2 * space else Path(tempfile.gettempdir())


def available_memory() -> int:
    """Bytes of memory that programs can still have."""
    fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) << 10


def place_fact(place: Path) -> tuple[str, str]:
    """How the report says where the images were."""
    return "images", "in memory (tmpfs)" if place == _MEMORY else f"on the file system of {place}"
