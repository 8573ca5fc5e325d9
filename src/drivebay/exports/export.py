"""What is offered: a disk under a name, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.engine.disk import Disk


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """``disk`` offered as ``name``; ``description`` is shown to people who list the exports.

    Without ``discard`` clients can't give space back.
    """

    disk: Disk
    name: str = ""
    description: str = ""
    read_only: bool = False
    discard: bool = True

    @property
    def writable(self) -> bool:
        """Whether clients may change the disk."""
        return self.disk.writable and not self.read_only
