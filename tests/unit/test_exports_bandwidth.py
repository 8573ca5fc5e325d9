"""Bandwidth limits on a clock of their own."""

from __future__ import annotations

import pytest

from drivebay.exports.bandwidth import Bandwidth, Line

MIB = 1 << 20


class Client(Line):
    """Keeps ``depth`` requests of ``length`` bytes waiting, with some time to think after each."""

    def __init__(self, bandwidth: Bandwidth, length: int, depth: int = 1, thinks: float = 0.0) -> None:
        super().__init__()
        self.bandwidth, self.length, self.depth, self.thinks = bandwidth, length, depth, thinks
        self.done = 0
        self.asks = [0.0] * depth

    def ask(self, now: float) -> None:
        """Send what is to be sent by now."""
        while self.asks and self.asks[0] <= now:
            self.asks.pop(0)
            self.bandwidth.add(self, self.length, now)

    def go(self, count: int) -> None:
        self.done += count * self.length
        self.asks += [clock.now + self.thinks] * count


class Clock:
    now = 0.0


clock = Clock()


def run(clients: list[Client], seconds: float, step: float = 0.001, begin: float = 0.0) -> None:
    """Let time pass in steps, as a loop would that wakes up so often."""
    bandwidth = clients[0].bandwidth
    steps = round(seconds / step)
    for number in range(steps + 1):
        clock.now = begin + number * step
        for client in clients:
            client.ask(clock.now)
        if bandwidth.lines:
            bandwidth.release(clock.now)


@pytest.mark.parametrize("length", [4096, 65536, MIB])
@pytest.mark.parametrize("depth", [4, 32])
@pytest.mark.parametrize("step", [0.0005, 0.001, 0.02])
def test_the_limit_is_met_and_never_exceeded(length: int, depth: int, step: float) -> None:
    bandwidth = Bandwidth(10 * MIB)
    many = Client(bandwidth, length, depth if length > 4096 else 256)
    run([many], 3.0, step)
    assert many.done <= 30 * MIB
    assert many.done > 0.95 * 30 * MIB - length


def test_a_large_request_takes_the_time_of_its_bytes() -> None:
    bandwidth = Bandwidth(16 * MIB)
    client = Client(bandwidth, 32 * MIB)
    run([client], 1.9)
    assert client.done == 0
    run([client], 0.2, begin=1.9)
    assert client.done == 32 * MIB


def test_time_to_think_is_made_up_for() -> None:
    client = Client(Bandwidth(10 * MIB), MIB, thinks=0.05)
    run([client], 3.0)
    assert 28 * MIB <= client.done <= 30 * MIB


def test_what_nobody_asked_for_is_not_saved_up() -> None:
    bandwidth = Bandwidth(10 * MIB)
    client = Client(bandwidth, MIB, 8)
    client.asks = [5.0] * 8
    run([client], 3.0, begin=5.0)
    assert client.done <= 30 * MIB


def test_a_slow_disk_beside_a_greedy_one_gets_half() -> None:
    bandwidth = Bandwidth(10 * MIB)
    greedy, modest = Client(bandwidth, MIB, 32), Client(bandwidth, 65536, 32)
    run([greedy, modest], 4.0)
    assert greedy.done + modest.done > 0.95 * 40 * MIB
    assert 0.8 < greedy.done / modest.done < 1.25


def test_a_limit_changes_while_requests_wait() -> None:
    bandwidth = Bandwidth(MIB)
    client = Client(bandwidth, MIB, 4)
    run([client], 1.5)
    assert client.done == MIB
    bandwidth.limit = 20 * MIB
    run([client], 1.0, begin=1.5)
    assert 18 * MIB <= client.done <= 24 * MIB  # with what the slower limit let be caught up with
    bandwidth.limit = 0
    client.asks = []
    run([client], 0.0, begin=2.5)
    assert not bandwidth.lines


def test_who_is_gone_takes_nothing() -> None:
    bandwidth = Bandwidth(10 * MIB)
    gone, there = Client(bandwidth, MIB, 64), Client(bandwidth, 65536, 4)
    run([gone, there], 0.5)
    bandwidth.forget(gone)
    gone.asks = []
    before = there.done
    run([there], 2.0, begin=0.5)
    assert there.done - before > 0.95 * 20 * MIB
    assert not gone.costs
