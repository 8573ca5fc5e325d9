"""How long it takes to open an image and read from it, by the size of its disk and the depth of its chain."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bench import wire
from bench.errors import BenchError
from bench.images import FIRST_PLACE, sparse_qcow2_chain, sparse_vdi, sparse_vdi_chain
from bench.peers import DRIVEBAY, QEMU_NBD, Image, Server, running
from bench.plan import GIB, TIB, Plan
from bench.rounds import Case, Unit, Values

OPEN = "drivebay.open() and first read"
WHOLE = "the same with the interpreter's start"


def open_name(size: int, depth: int) -> str:
    """The name of a case, under which its figures are found."""
    human = f"{size // TIB} TiB" if size >= TIB else f"{size // GIB} GiB"
    return f"{human}, {depth} layer{'s' if depth > 1 else ''}"


def open_cases(folder: Path, plan: Plan) -> list[Case]:
    """All sizes at depth 1, then all depths of the largest that the plan names."""
    singles = [sparse_vdi(folder / f"open-{size}.vdi", size) for size in plan.open_sizes]
    cases = [_case(open_name(image.size, 1), image, image) for image in singles]
    deepest = max(plan.open_depths)
    vdi = sparse_vdi_chain(folder, plan.open_chain, deepest)
    qcow2 = sparse_qcow2_chain(folder, plan.open_chain, deepest)
    deep = [
        _case(open_name(plan.open_chain, depth), vdi[depth - 1], qcow2[depth - 1])
        for depth in plan.open_depths
        if depth > 1
    ]
    return [*cases, *deep]


def _case(name: str, ours: Image, theirs: Image) -> Case:
    probes = {
        "drivebay.open()": partial(_open_in_process, ours),
        DRIVEBAY.name: partial(_first_reply, DRIVEBAY, ours),
        QEMU_NBD.name: partial(_first_reply, QEMU_NBD, theirs),
    }
    return Case(name, Unit.MILLISECONDS, probes)


def _open_in_process(image: Image) -> Values:
    command = [sys.executable, "-m", "bench.open_once", str(image.path), str(FIRST_PLACE)]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - begun
    if done.returncode:
        raise BenchError(f"drivebay.open() fails: {done.stderr.strip()[-500:]}")
    told = json.loads(done.stdout)
    if told["word"] != FIRST_PLACE // wire.PAGE:
        raise BenchError(f"drivebay.open() reads wrong data: {told}")
    return {OPEN: 1000 * told["seconds"], WHOLE: 1000 * whole}


def _first_reply(server: Server, image: Image) -> Values:
    begun = time.perf_counter()
    with running(server, image) as process, process.connect() as client:
        page = client.read(FIRST_PLACE, wire.PAGE)
        seconds = time.perf_counter() - begun
    if page != wire.pages(FIRST_PLACE // wire.PAGE, 1):
        raise BenchError(f"{server.name} reads wrong data")
    return {f"{server.name}, start to first reply": 1000 * seconds}
