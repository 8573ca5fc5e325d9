"""The targets, and whether this run met them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.depth import depth_name
from bench.formats import FORMATS, first_name, used_name
from bench.opening import OPEN, open_name
from bench.peers import DRIVEBAY, NBDKIT, QEMU_NBD
from bench.plan import TIB
from bench.report import Table
from bench.rounds import Results
from bench.throughput import random_name

DEEP = 64


@dataclass(frozen=True)
class Target:
    """A bound and what was measured (``None``: nothing). ``least`` tells a lower bound from an upper one."""

    name: str
    bound: float
    measured: float | None
    least: bool = True
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Met, missed, or not measured."""
        if self.measured is None:
            return "not measured"
        met = self.measured >= self.bound if self.least else self.measured <= self.bound
        return "met" if met else "missed"

    def row(self) -> list[str]:
        """The target as a row of the verdict table."""
        measured = "-" if self.measured is None else f"{self.measured:.2f}{self.unit}"
        return [
            self.name,
            f"{'>=' if self.least else '<='} {self.bound:g}{self.unit}",
            measured,
            self.verdict,
        ]


def targets(results: Results) -> list[Target]:
    """All targets with what this run measured for them."""
    return [
        *_against_qemu(results),
        Target(
            "raw, random read QD32, to nbdkit's file plugin",
            1.0,
            _ratio(results, random_name("raw", write=False, depth=32), NBDKIT.name),
        ),
        Target(
            "raw, random write QD32, to nbdkit's file plugin",
            1.0,
            _ratio(results, random_name("raw", write=True, depth=32), NBDKIT.name),
        ),
        *(
            Target(f"VDI chain, random read QD{depth}, 64 layers to 1", 0.9, _kept(results, depth))
            for depth in (1, 32)
        ),
        *_formats(results),
        Target(
            "opening a VDI chain of 16 TiB and 64 layers",
            100,
            results.median(open_name(16 * TIB, DEEP), OPEN),
            least=False,
            unit=" ms",
        ),
    ]


def _against_qemu(results: Results) -> list[Target]:
    bounds = {(False, 32): 3.0, (True, 32): 2.0, (False, 1): 1.5, (True, 1): 1.5}
    return [
        Target(
            f"VDI, random {'write' if write else 'read'} QD{depth}, to qemu-nbd",
            bound,
            _ratio(results, random_name("vdi", write=write, depth=depth), QEMU_NBD.name),
        )
        for (write, depth), bound in bounds.items()
    ]


def _formats(results: Results) -> list[Target]:
    bounds = {
        f"{name} file, {what}, to qemu-nbd": (case, bound)
        for name in FORMATS
        for what, case, bound in (
            ("random read QD32", used_name(name, write=False), 2.0),
            ("random write QD32", used_name(name, write=True), 2.0),
            ("first write QD32", first_name(name), 1.5),
        )
        if (name, what) != ("raw", "first write QD32")
    }
    return [
        Target(name, bound, _ratio(results, case, QEMU_NBD.name)) for name, (case, bound) in bounds.items()
    ]


def _ratio(results: Results, case: str, peer: str) -> float | None:
    return results.ratio((case, DRIVEBAY.name), (case, peer))


def _kept(results: Results, depth: int, server: str = DRIVEBAY.name) -> float | None:
    return results.ratio((depth_name(DEEP, depth), server), (depth_name(1, depth), server))


def verdict_table(results: Results) -> Table:
    """Each target with its bound, the measured value and the verdict."""
    rows = [target.row() for target in targets(results)]
    rows += [
        [
            f"for comparison: QCOW2 chain in qemu-nbd, random read QD{depth}, 64 layers to 1",
            "",
            f"{kept:.2f}",
            "",
        ]
        for depth in (1, 32)
        if (kept := _kept(results, depth, QEMU_NBD.name)) is not None
    ]
    return Table("Targets", ["target", "bound", "measured", "verdict"], rows)
