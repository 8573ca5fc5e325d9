"""Where a machine's EFI variables are: those of its current state, and the copies that its snapshots keep.

The firmware keeps its boot entries there, and a guest what it likes. A copy is found by the snapshot's UUID;
a snapshot without one was taken before the machine had started with EFI.
"""

from __future__ import annotations

import os
from uuid import UUID

from drivebay.machines.model import Machine

NAME = "efi-variables.fd"


def variables_of(machine: Machine, snapshot: UUID | None = None) -> str:
    """The file of the current state, or of a snapshot, whether it is there or not."""
    if snapshot is None:
        return os.path.join(machine.folder, NAME)
    return os.path.join(machine.snapshot_folder, f"{snapshot}-{NAME}")


def all_variables(machine: Machine) -> list[str]:
    """The files of all states."""
    return [variables_of(machine, state) for state in (None, *(one.uuid for one in machine.snapshots))]
