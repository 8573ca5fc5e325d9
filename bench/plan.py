"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40


@dataclass(frozen=True)
class Plan:
    """Rounds, seconds, sizes in bytes. ``open_chain`` is the disk that is opened at all ``open_depths``.

    ``first_disk`` is the empty disk that first writes go to.
    """

    rounds: int
    seconds: float
    warm_up: float
    disk: int
    chain_disk: int
    chain_depths: tuple[int, ...]
    first_disk: int
    open_sizes: tuple[int, ...]
    open_chain: int
    open_depths: tuple[int, ...]

    @property
    def space(self) -> int:
        """Bytes of free disk that the images take at most, with room to spare."""
        disks = 2 * self.disk
        chains = 2 * len(self.chain_depths) * self.chain_disk
        maps = max(self.open_depths) * map_size(self.open_chain) + sum(map(map_size, self.open_sizes))
        formats = 10 * self.chain_disk + self.first_disk // 4  # a few KiB are written to each 2 MiB of it
        return disks + max(chains, maps, formats) + GIB // 2


def map_size(disk: int) -> int:
    """Bytes of block map that a VDI of ``disk`` bytes has: four for each block of 1 MiB."""
    return disk // MIB * 4


FULL = Plan(
    rounds=5,
    seconds=0.5,
    warm_up=0.25,
    disk=GIB,
    chain_disk=GIB // 2,
    chain_depths=(1, 64, 4, 16),  # the two that are compared stand side by side in each round
    first_disk=4 * GIB,
    open_sizes=(GIB, 64 * GIB, TIB, 16 * TIB),
    open_chain=16 * TIB,
    open_depths=(1, 16, 64),
)

QUICK = Plan(
    rounds=2,
    seconds=0.4,
    warm_up=0.1,
    disk=128 * MIB,
    chain_disk=64 * MIB,
    chain_depths=(1, 64, 16),
    first_disk=GIB,
    open_sizes=(GIB, TIB),
    open_chain=TIB,
    open_depths=(1, 64),
)
