"""How much of a machine a clone takes along (virtual-storage specification, 7.2)."""

from __future__ import annotations

import enum


class CloneMode(enum.Enum):
    """What of the snapshot tree is copied."""

    MACHINE = "machine"
    MACHINE_AND_CHILDREN = "machineandchildren"
    ALL = "all"
