"""What the guests of the crash tests do: short scripts, made to hit what is hard."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from support.crash import Guest

_bytes = np.random.default_rng(99).bytes


def allocate(guest: Guest) -> None:
    """New blocks, several in an epoch, unaligned ones with copy-up; then in place; then FUA."""
    for block in (3, 0, 4):
        guest.write(block * guest.block + 1000, _bytes(3000))
    guest.write(2 * guest.block - 700, _bytes(1400))
    guest.flush()
    guest.write(3 * guest.block, _bytes(8192))
    guest.write(5 * guest.block, _bytes(4096))
    guest.write_batch([(guest.block - 100, _bytes(200)), (4 * guest.block + 512, _bytes(1024))])
    guest.flush()
    guest.write(3 * guest.block + 512, _bytes(1024), fua=True)
    guest.write(1000, _bytes(100), fua=True)
    guest.write(0, _bytes(2048))


def reuse(guest: Guest) -> None:
    """Blocks are dropped and their units go to other blocks, before and after flushes."""
    guest.write(0, _bytes(3 * guest.block))
    guest.flush()
    guest.discard(guest.block, guest.block)
    guest.write(4 * guest.block + 512, _bytes(2048))
    guest.flush()
    guest.write(3 * guest.block + 4096, _bytes(4096))
    guest.write(5 * guest.block, _bytes(512))
    guest.discard(0, guest.block)
    guest.write(100, _bytes(1000))
    guest.flush()
    guest.zero(3 * guest.block, 2 * guest.block)
    guest.write(guest.block, _bytes(guest.block))
    guest.write(4 * guest.block, _bytes(4096))
    guest.flush()
    guest.write(3 * guest.block, _bytes(4096), fua=True)


def zeros(guest: Guest) -> None:
    """Zeros and discards of parts and wholes, over data of this image and of its parents."""
    guest.zero(guest.block, guest.block)
    guest.zero(2 * guest.block + 1000, 5000)
    guest.flush()
    guest.write(0, _bytes(guest.block))
    guest.zero(4096, 8192, unmap=False)
    guest.zero(100_000, 60_000)
    guest.flush()
    guest.discard(3 * guest.block - 5000, guest.block)
    guest.zero(0, guest.block, unmap=False)
    guest.write(guest.block + 700, _bytes(700))
    guest.flush()
    guest.zero(0, guest.block, fua=True)
    guest.discard(2 * guest.block, 3 * guest.block)
    guest.write(2 * guest.block, _bytes(1024))


def anything(seed: int) -> Callable[[Guest], None]:
    """A script of random steps."""

    def run(guest: Guest) -> None:
        draw = random.Random(seed)
        for _ in range(28):
            offset = draw.randrange(6 * guest.block // 512) * 512
            whole = draw.randrange(6) * guest.block
            match draw.randrange(6):
                case 0 | 1:
                    guest.write(
                        offset, _bytes(min(draw.choice((512, 4096, 20_000)), 6 * guest.block - offset))
                    )
                case 2:
                    guest.write(whole, _bytes(guest.block), fua=draw.random() < 0.2)
                case 3:
                    guest.discard(whole, guest.block)
                case 4:
                    guest.zero(whole, guest.block // draw.choice((1, 2)), unmap=draw.random() < 0.5)
                case _:
                    guest.flush()

    return run
