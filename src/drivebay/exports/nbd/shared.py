"""What all connections of a server share."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drivebay.engine.disk import Disk
from drivebay.exports.bandwidth import Bandwidth
from drivebay.exports.export import Export
from drivebay.exports.nbd.buffers import PayloadBuffers
from drivebay.exports.nbd.plain import Slab
from drivebay.exports.nbd.waiting import Eagerness
from drivebay.exports.nbd.workers import Workers

if TYPE_CHECKING:
    from drivebay.exports.nbd.connection import Connection


@dataclass(slots=True)
class ServerStats:
    """Counters since the server started; ``connections`` is how many there are now."""

    requests: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    errors: int = 0
    connections: int = 0
    accepted: int = 0


@dataclass(slots=True)
class Shared:
    """The parts of a server that its connections use; only the loop's thread touches them."""

    exports: dict[str, Export]
    workers: Workers
    epoll: select.epoll
    handlers: dict[int, Callable[[int], None]]  # by file descriptor; called with the events
    slab: Slab = field(default_factory=Slab)
    payloads: PayloadBuffers = field(default_factory=PayloadBuffers)
    eagerness: Eagerness = field(default_factory=Eagerness)
    stats: ServerStats = field(default_factory=ServerStats)
    connections: set[Connection] = field(default_factory=set)
    handshaking: set[Connection] = field(default_factory=set)
    written: set[Disk] = field(default_factory=set)  # disks that were changed since the loop last looked
    going_on: set[Connection] = field(default_factory=set)  # to resume when the events are handled
    delayed: set[Bandwidth] = field(default_factory=set)  # that requests wait for
    closed: list[socket.socket] = field(default_factory=list)  # for the loop to close after its events
