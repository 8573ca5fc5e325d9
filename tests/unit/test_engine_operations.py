"""Operations: numbers, holding writers, pausing, closing."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import pytest

from drivebay.engine.operations import Operations
from drivebay.errors import ErrorKind, StorageError
from support.threads import Gate, start


class Fixture:
    """Operations with the lock that they share with a disk."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.operations = Operations(self.changed)

    def stand(self, gate: Gate, *, writes: bool) -> None:
        with self.operations.under_way(writes=writes):
            gate.stop_here()

    def pause(self, gate: Gate) -> None:
        with self.operations.under_way(writes=True), self.changed:
            gate.reached.set()
            while not gate.is_set():
                self.operations.pause(0.01)


@pytest.fixture
def parts() -> Fixture:
    return Fixture()


def test_the_oldest_is_the_first_that_is_still_under_way(parts: Fixture) -> None:
    operations = parts.operations
    assert (operations.newest, operations.oldest()) == (0, 1)
    first, second = Gate(), Gate()
    for gate in (first, second):
        start(functools.partial(parts.stand, gate, writes=False))
        gate.wait_reached()
    assert (operations.newest, operations.oldest()) == (2, 1)
    first.set()
    _wait_for(lambda: operations.oldest() == 2)
    second.set()
    _wait_for(lambda: operations.oldest() == 3)


def test_one_that_pauses_counts_as_new(parts: Fixture) -> None:
    gate = Gate()
    done = start(lambda: parts.pause(gate))
    gate.wait_reached()
    with parts.operations.under_way(writes=True):
        newest = parts.operations.newest
    _wait_for(lambda: parts.operations.oldest() > newest)
    gate.set()
    done.result(60)


def test_writers_are_held_and_readers_not(parts: Fixture) -> None:
    gate = Gate()
    start(lambda: parts.stand(gate, writes=True))
    gate.wait_reached()
    holding = start(parts.operations.hold_writers)
    with pytest.raises(TimeoutError):
        holding.result(0.05)
    gate.set()
    holding.result(60)
    late = Gate()
    late.set()
    waiting = start(lambda: parts.stand(late, writes=True))
    with parts.operations.under_way(writes=False), pytest.raises(TimeoutError):
        waiting.result(0.05)
    parts.operations.release_writers()
    waiting.result(60)


def test_writers_go_on_when_the_last_holder_lets_go(parts: Fixture) -> None:
    parts.operations.hold_writers()
    parts.operations.hold_writers()
    gate = Gate()
    gate.set()
    waiting = start(lambda: parts.stand(gate, writes=True))
    parts.operations.release_writers()
    with pytest.raises(TimeoutError):
        waiting.result(0.05)
    parts.operations.release_writers()
    waiting.result(60)


def test_closing_waits_for_what_is_under_way_and_refuses_the_rest(parts: Fixture) -> None:
    gates = [Gate(), Gate()]
    start(lambda: parts.stand(gates[0], writes=False))
    start(lambda: parts.pause(gates[1]))
    for gate in gates:
        gate.wait_reached()
    closing = start(parts.operations.close)
    for gate in gates:
        with pytest.raises(TimeoutError):
            closing.result(0.05)
        gate.set()
    assert closing.result(60) is True
    assert parts.operations.close() is False
    with pytest.raises(StorageError) as caught, parts.operations.under_way(writes=False):
        pass
    assert caught.value.kind is ErrorKind.STATE


def test_closing_wakes_writers_that_are_held(parts: Fixture) -> None:
    parts.operations.hold_writers()
    gate = Gate()
    waiting = start(lambda: parts.stand(gate, writes=True))
    parts.operations.close()
    with pytest.raises(StorageError, match="closed"):
        waiting.result(60)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(6000):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("it did not happen within a minute")
