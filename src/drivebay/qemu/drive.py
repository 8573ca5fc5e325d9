"""A drive of a machine, as QEMU needs to know it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from uuid import UUID

from drivebay.machines.model import Attachment
from drivebay.model import UNDECIDED, Geometry

RECONNECT_DELAY = 600  # seconds for which a guest's requests wait for a new worker


@dataclass(frozen=True, slots=True)
class Drive:
    """An attachment, where its medium is served, and what only the image knows.

    ``export`` None is a drive with nothing in it. ``base`` is the UUID of the chain's base, ``size`` bytes.
    Requests wait ``reconnect_delay`` seconds for a server that is away, then they fail.
    """

    attachment: Attachment
    socket: str | os.PathLike[str] = ""
    export: str | None = None
    base: UUID | None = None
    size: int = 0
    writable: bool = True
    shared: bool = False
    pchs: Geometry = UNDECIDED
    lchs: Geometry = UNDECIDED
    reconnect_delay: int = RECONNECT_DELAY
