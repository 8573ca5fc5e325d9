"""A client that transfers as fast as it is let, and how fast that is."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from support.nbd_client import READ, SIMPLE, WRITE, Client


@dataclass(frozen=True)
class Transfer:
    """What one client does: ``depth`` requests of ``length`` bytes in flight."""

    export: str
    depth: int
    length: int
    command: int = READ


@dataclass
class Paced:
    """Bytes that were answered after the first answer, and how many seconds after it the last one came."""

    bytes: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.bytes / self.seconds


def transfer(path: str, what: Transfer, seconds: float, done: Paced) -> None:
    """Send requests for so long, at least once, and wait for all answers."""
    payload = bytes([7]) * what.length if what.command == WRITE else b""
    answer = bytearray(16 + (what.length if what.command == READ else 0))
    with Client(path, what.export, style="simple") as client:
        client.sock.settimeout(60)
        span = client.size // what.length
        started = time.monotonic()
        for number in range(what.depth):
            client.send(what.command, number % span * what.length, what.length, payload)
        _receive(client, answer)
        first = time.monotonic()
        flying, number = what.depth - 1, what.depth
        while True:
            if time.monotonic() < started + seconds or not (flying or done.bytes):
                client.send(what.command, number % span * what.length, what.length, payload)
                flying, number = flying + 1, number + 1
            if not flying:
                break
            _receive(client, answer)
            flying -= 1
            done.bytes += what.length
            done.seconds = time.monotonic() - first


def _receive(client: Client, answer: bytearray) -> None:
    view = memoryview(answer)
    while view:
        view = view[client.sock.recv_into(view) :]
    assert answer[:8] == SIMPLE.to_bytes(4, "big") + bytes(4)


def transfer_all(path: str, whats: Sequence[Transfer], seconds: float) -> list[Paced]:
    """Several clients at once."""
    results = [Paced() for _ in whats]
    threads = [
        threading.Thread(target=transfer, args=(path, what, seconds, result))
        for what, result in zip(whats, results, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
