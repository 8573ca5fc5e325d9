"""Probes of requests and bytes a second."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.client import Client
from bench.images import copy
from bench.load import Load, random_load, sequential_load
from bench.peers import DRIVEBAY, ECHO, NBDKIT, QEMU_NBD, QEMU_STORAGE_DAEMON, Image, Server, running
from bench.plan import MIB, Plan
from bench.rounds import Case, Unit, Values

BLOCK = 4096
DEPTHS = (1, 32)
SEQUENTIAL_DEPTH = 4
TURNS = 10

Targets = Iterable[tuple[Server, Image]]


def measure(server: Server, image: Image, load: Load, plan: Plan, *, structured: bool = False) -> float:
    """Requests a second of a fresh ``server`` on ``image``, whose pages hold their numbers.

    One connection for all of it: qemu-storage-daemon 7.2 with an iothread aborts when a client leaves.
    """
    settle(image.path)
    with running(server, image) as process, process.connect(structured=structured) as client:
        client.measure(load, plan.warm_up)
        return client.measure(load, plan.seconds)


def settle(path: Path) -> None:
    """Write back what earlier rounds left dirty, so that nobody pays for another's writes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def case(name: str, targets: Targets, load: Load, plan: Plan, *, structured: bool = False) -> Case:
    """A case that puts ``load`` on each server's image."""
    large = load.length >= MIB
    unit, factor = (Unit.MIB_PER_SECOND, load.length / MIB) if large else (Unit.REQUESTS, 1.0)

    def probe(server: Server, image: Image) -> Values:
        return {server.name: factor * measure(server, image, load, plan, structured=structured)}

    probes: Mapping[str, Callable[[], Values]] = {
        server.name: partial(probe, server, image) for server, image in targets
    }
    return Case(name, unit, probes)


def servers(image: Image) -> Targets:
    """All servers that can serve the image."""
    able = (DRIVEBAY, QEMU_NBD, QEMU_STORAGE_DAEMON, *([NBDKIT] if image.format == "raw" else []))
    return [(server, image) for server in able]


def ceiling_cases(image: Image, plan: Plan) -> list[Case]:
    """What the client reaches on a server that does nothing: servers near it are faster than can be seen."""
    return [
        *random_cases("client", [(ECHO, image)], plan),
        *sequential_cases("client", [(ECHO, image)], plan),
    ]


def random_cases(label: str, targets: Targets, plan: Plan) -> list[Case]:
    """4 KiB random reads and writes, one and 32 in flight."""
    return [
        case(random_name(label, write=write, depth=depth), targets, _random(write, depth, plan.disk), plan)
        for write in (False, True)
        for depth in DEPTHS
    ]


def case_in_turns(name: str, able: Sequence[Server], image: Image, plan: Plan, *, write: bool) -> Case:
    """4 KiB random requests to the smaller disk, 32 in flight; see `measure_in_turns`."""
    load = random_load(write=write, length=BLOCK, depth=32, size=plan.chain_disk)
    return Case(name, Unit.REQUESTS, {"all in turns": partial(measure_in_turns, able, image, load, plan)})


def measure_in_turns(able: Sequence[Server], image: Image, load: Load, plan: Plan) -> Values:
    """Requests a second of fresh servers that are up together and loaded in short turns, one at a time.

    What the machine does meanwhile changes within seconds, so that it meets all of them alike. Each has its
    own copy of the image, as two that write don't share one.
    """
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=image.path.parent)))
        clients: dict[str, Client] = {}
        for server in able:
            copied = copy(image, place / f"{server.name}.{image.path.name}")
            settle(copied.path)
            process = stack.enter_context(running(server, copied))
            clients[server.name] = stack.enter_context(process.connect())
        for client in clients.values():
            client.measure(load, plan.warm_up)
        turns: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(TURNS):
            for name, client in clients.items():
                turns[name].append(client.measure(load, plan.seconds / 5))
    return {name: statistics.mean(rates) for name, rates in turns.items()}


def random_name(label: str, *, write: bool, depth: int) -> str:
    """The name of a random case, under which its figures are found."""
    return f"{label} random {'write' if write else 'read'} QD{depth}"


def sequential_cases(label: str, targets: Targets, plan: Plan) -> list[Case]:
    """1 MiB sequential reads and writes."""
    loads = [
        (kind, sequential_load(write=kind == "write", length=MIB, depth=SEQUENTIAL_DEPTH, size=plan.disk))
        for kind in ("read", "write")
    ]
    return [
        case(f"{label} sequential {kind} QD{SEQUENTIAL_DEPTH}", targets, load, plan) for kind, load in loads
    ]


def structured_cases(image: Image, plan: Plan) -> list[Case]:
    """Random reads with structured replies, which QEMU asks for as a client."""
    load = _random(False, 32, plan.disk)
    name = f"{random_name(image.format, write=False, depth=32)}, structured"
    return [case(name, servers(image), load, plan, structured=True)]


def _random(write: bool, depth: int, size: int) -> Load:
    return random_load(write=write, length=BLOCK, depth=depth, size=size)
