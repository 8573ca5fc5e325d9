"""A row for each format that QEMU writes: copies of one file served by drivebay and by qemu-nbd."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from bench.images import empty_image, format_copy, raw_disk
from bench.load import Load, allocating_load
from bench.peers import DRIVEBAY, QEMU_NBD, Image, Server, running
from bench.plan import MIB, Plan
from bench.rounds import Case, Unit, Values
from bench.throughput import BLOCK, case_in_turns, random_name

#: QEMU's names of the formats, with how their files' names end.
FORMATS = {
    "raw": "raw",
    "vdi": "vdi",
    "vmdk": "vmdk",
    "vpc": "vhd",
    "vhdx": "vhdx",
    "qcow2": "qcow2",
    "qed": "qed",
    "parallels": "hdd",
}
DEPTH = 32
BURSTS = 3  # of first writes in a round: one takes but a tenth of a second, so it says little by itself
STRIDE = 2 * MIB  # the largest block that one of them has by default is VHD's
_SERVERS = (DRIVEBAY, QEMU_NBD)


def used_name(name: str, *, write: bool) -> str:
    """The name of a case on a full disk."""
    return random_name(f"{name} file", write=write, depth=DEPTH)


def first_name(name: str) -> str:
    """The name of a case of first writes, under which its figures are found."""
    return f"{name} first write QD{DEPTH}"


def format_cases(folder: Path, plan: Plan) -> list[Case]:
    """Random reads and writes of a full disk, and the first writes to an empty one."""
    raw = raw_disk(folder, plan.chain_disk)
    load = allocating_load(length=BLOCK, depth=DEPTH, stride=STRIDE, size=plan.first_disk)
    cases: list[Case] = []
    for name, extension in FORMATS.items():
        image = raw if name == "raw" else format_copy(raw, name, extension)
        cases += [
            case_in_turns(used_name(name, write=write), _SERVERS, image, plan, write=write)
            for write in (False, True)
        ]
        if name != "raw":
            cases.append(_first_case(folder, name, extension, load, plan.first_disk))
    return cases


def _first_case(folder: Path, name: str, extension: str, load: Load, size: int) -> Case:
    def burst(server: Server) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            return _first(server, empty_image(Path(place), name, extension, size), load)

    def probe(server: Server) -> Values:
        return {server.name: median(burst(server) for _ in range(BURSTS))}

    return Case(first_name(name), Unit.REQUESTS, {server.name: partial(probe, server) for server in _SERVERS})


def _first(server: Server, image: Image, load: Load) -> float:
    with running(server, image) as process, process.connect() as client:
        return client.finish(load)
