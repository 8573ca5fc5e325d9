"""What the parts of one disk share."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from drivebay.engine.operations import Operations
from drivebay.engine.pagemap import PageMap
from drivebay.engine.reader import Reader
from drivebay.engine.stats import DiskStats


@dataclass(frozen=True, slots=True)
class Shared:
    """The disk's condition (its lock guards the map and the open epoch), map, reader and counters."""

    changed: threading.Condition
    page_map: PageMap
    reader: Reader
    operations: Operations
    stats: DiskStats
