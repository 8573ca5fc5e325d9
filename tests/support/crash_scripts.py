"""What the guests of the crash tests do: short scripts, made to hit what is hard."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from support.crash import Guest
from support.disks import KIB

BLOCK = 512 * KIB
_bytes = np.random.default_rng(99).bytes


def allocate(guest: Guest) -> None:
    """New blocks, several in an epoch, unaligned ones with copy-up; then in place; then FUA."""
    for block in (3, 0, 4):
        guest.write(block * BLOCK + 1000, _bytes(3000))
    guest.write(2 * BLOCK - 700, _bytes(1400))
    guest.flush()
    guest.write(3 * BLOCK, _bytes(8192))
    guest.write(5 * BLOCK, _bytes(4096))
    guest.write_batch([(BLOCK - 100, _bytes(200)), (4 * BLOCK + 512, _bytes(1024))])
    guest.flush()
    guest.write(3 * BLOCK + 512, _bytes(1024), fua=True)
    guest.write(1000, _bytes(100), fua=True)
    guest.write(0, _bytes(2048))


def reuse(guest: Guest) -> None:
    """Blocks are dropped and their units go to other blocks, before and after flushes."""
    guest.write(0, _bytes(3 * BLOCK))
    guest.flush()
    guest.discard(BLOCK, BLOCK)
    guest.write(4 * BLOCK + 512, _bytes(2048))
    guest.flush()
    guest.write(3 * BLOCK + 4096, _bytes(4096))
    guest.write(5 * BLOCK, _bytes(512))
    guest.discard(0, BLOCK)
    guest.write(100, _bytes(1000))
    guest.flush()
    guest.zero(3 * BLOCK, 2 * BLOCK)
    guest.write(BLOCK, _bytes(BLOCK))
    guest.write(4 * BLOCK, _bytes(4096))
    guest.flush()
    guest.write(3 * BLOCK, _bytes(4096), fua=True)


def zeros(guest: Guest) -> None:
    """Zeros and discards of parts and wholes, over data of this image and of its parents."""
    guest.zero(BLOCK, BLOCK)
    guest.zero(2 * BLOCK + 1000, 5000)
    guest.flush()
    guest.write(0, _bytes(BLOCK))
    guest.zero(4096, 8192, unmap=False)
    guest.zero(100_000, 60_000)
    guest.flush()
    guest.discard(3 * BLOCK - 5000, BLOCK)
    guest.zero(0, BLOCK, unmap=False)
    guest.write(BLOCK + 700, _bytes(700))
    guest.flush()
    guest.zero(0, BLOCK, fua=True)
    guest.discard(2 * BLOCK, 3 * BLOCK)
    guest.write(2 * BLOCK, _bytes(1024))


def anything(seed: int) -> Callable[[Guest], None]:
    """A script of random steps."""

    def run(guest: Guest) -> None:
        draw = random.Random(seed)
        for _ in range(28):
            offset = draw.randrange(6 * BLOCK // 512) * 512
            whole = draw.randrange(6) * BLOCK
            match draw.randrange(6):
                case 0 | 1:
                    guest.write(offset, _bytes(min(draw.choice((512, 4096, 20_000)), 6 * BLOCK - offset)))
                case 2:
                    guest.write(whole, _bytes(BLOCK), fua=draw.random() < 0.2)
                case 3:
                    guest.discard(whole, BLOCK)
                case 4:
                    guest.zero(whole, BLOCK // draw.choice((1, 2)), unmap=draw.random() < 0.5)
                case _:
                    guest.flush()

    return run
