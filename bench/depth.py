"""Random reads through chains: the same data, spread over 1 to 64 layers."""

from __future__ import annotations

from pathlib import Path

from bench.images import qcow2_chain, vdi_chain
from bench.load import random_load
from bench.peers import DRIVEBAY, QEMU_NBD, QEMU_STORAGE_DAEMON
from bench.plan import Plan
from bench.rounds import Case
from bench.throughput import BLOCK, DEPTHS, Targets, case


def depth_name(layers: int, queue_depth: int) -> str:
    """The name of a case, under which its figures are found."""
    return f"{layers} layer{'s' if layers > 1 else ''}, random read QD{queue_depth}"


def depth_cases(folder: Path, plan: Plan) -> list[Case]:
    """Each depth with each queue depth: drivebay on VDI, the others on QCOW2 (QEMU has no VDI chains)."""
    targets = {layers: _targets(folder, plan.chain_disk, layers) for layers in plan.chain_depths}
    return [
        case(
            depth_name(layers, depth),
            targets[layers],
            random_load(write=False, length=BLOCK, depth=depth, size=plan.chain_disk),
            plan,
        )
        for depth in DEPTHS
        for layers in plan.chain_depths
    ]


def _targets(folder: Path, size: int, layers: int) -> Targets:
    qcow2 = qcow2_chain(folder, size, layers)
    vdi = vdi_chain(folder, size, layers)
    return [(DRIVEBAY, vdi), (QEMU_NBD, qcow2), (QEMU_STORAGE_DAEMON, qcow2)]
