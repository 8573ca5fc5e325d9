"""Memory for each TiB mapped: how much a server grows when the whole map of its disk has been used."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench import wire
from bench.images import map_everything, sparse_vdi
from bench.peers import DRIVEBAY, QEMU_NBD, Image, Server, running
from bench.plan import GIB, MIB, TIB
from bench.rounds import Case, Unit, Values

STEP = 512 * MIB  # one read in each run of 512 blocks of 1 MiB
MEMORY = "memory for 1 TiB mapped"


def memory_cases(folder: Path) -> list[Case]:
    """A VDI of 1 TiB with all blocks allocated against one of 1 GiB, every part of the map used."""
    images = [sparse_vdi(folder / f"memory-{size}.vdi", size) for size in (GIB, TIB)]
    for image in images:
        map_everything(image)
    probes = {server.name: partial(_growth, server, *images) for server in (DRIVEBAY, QEMU_NBD)}
    return [Case(MEMORY, Unit.MIB, probes)]


def _growth(server: Server, small: Image, large: Image) -> Values:
    return {server.name: (_resident(server, large) - _resident(server, small)) / MIB}


def _resident(server: Server, image: Image) -> int:
    with running(server, image) as process, process.connect() as client:
        for offset in range(0, image.size, STEP):
            client.read(offset, wire.PAGE)
        return process.resident()
