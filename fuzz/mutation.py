"""Damage, done to a file by chance; the same chance does the same damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fuzz.seeds import GUEST_LINE

_LINE = 64  # files are looked at in pieces of this size to find their metadata
_PAGE = 4096
_GUEST = GUEST_LINE[:10]
_LONGEST_COPY = 4096
_MOST_DAMAGES = 6
_EDGES = (0, 1, 2, 3, 7, 8, 9, 63, 64, 255, 256, 511, 512, 513, 4096, 65535, 65536)


class Target(NamedTuple):
    """The file that is damaged, and where its metadata lie: offsets of 64-byte pieces."""

    data: bytearray
    hot: list[int]
    words: tuple[bytes, ...]


def metadata_of(data: bytes) -> list[int]:
    """Offsets of the pieces that are neither zeros nor guest's data, and of the file's ends."""
    last = max(len(data) - 512, 0)
    found = [*range(0, min(len(data), 512), _LINE), *range(last - last % _LINE, len(data), _LINE)]
    for page in range(0, len(data), _PAGE):
        if data[page : page + _PAGE].strip(b"\0"):
            found += [
                place
                for place in range(page, page + _PAGE, _LINE)
                if _is_metadata(data[place : place + _LINE])
            ]
    return found or [0]


def _is_metadata(piece: bytes) -> bool:
    return bool(piece.strip(b"\0")) and _GUEST not in piece


def damage(path: Path, hot: list[int], words: tuple[bytes, ...], chance: random.Random) -> list[str]:
    """Damage the file at ``path``; ``words`` are put over text. Returns what was done, for people."""
    target = Target(bytearray(path.read_bytes()), hot, words)
    done = []
    for _ in range(chance.randint(1, _MOST_DAMAGES)):
        act = chance.choices(_ACTS, _WEIGHTS)[0]
        done.append(f"{path.name}: {act(target, chance)}")
    path.write_bytes(target.data)
    return done


def _place(target: Target, chance: random.Random) -> int:
    if chance.random() < 0.1:
        return chance.randrange(len(target.data) or 1)
    return chance.choice(target.hot) + chance.randrange(_LINE)


def _put(target: Target, place: int, value: bytes) -> str:
    room = max(len(target.data) - place, 0)
    target.data[place : place + len(value)] = value[:room]
    return f"{value[:16].hex()} at {place}"


def _flip(target: Target, chance: random.Random) -> str:
    place = _place(target, chance)
    before = target.data[place] if place < len(target.data) else 0
    return _put(target, place, bytes([before ^ 1 << chance.randrange(8)]))


def _byte(target: Target, chance: random.Random) -> str:
    return _put(
        target,
        _place(target, chance),
        bytes([chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])]),
    )


def _number(target: Target, chance: random.Random) -> str:
    """A number at the edge of something, in any width and byte order, where one may be."""
    width = chance.choice([1, 2, 4, 8])
    place = _place(target, chance) // width * width
    order = chance.choice(["little", "big"])
    top = 1 << 8 * width
    size = len(target.data)
    edge = chance.choice([*_EDGES, size, size // 512, size - 512, top >> 1, top >> 9, chance.randrange(top)])
    value = chance.choice([edge, edge, -edge, top - 1 - edge, edge << 9, edge << chance.randrange(64)])
    return _put(target, place, (value % top).to_bytes(width, "little" if order == "little" else "big"))


def _nudge(target: Target, chance: random.Random) -> str:
    """A number that was there, changed a little or much."""
    width = chance.choice([2, 4, 8])
    place = _place(target, chance) // width * width
    order = "little" if chance.random() < 0.5 else "big"
    before = int.from_bytes(target.data[place : place + width], "little" if order == "little" else "big")
    change = chance.choice([1, -1, 512, -512, 1 << 16, -before, before, 1 << chance.randrange(8 * width)])
    after = (before + change) % (1 << 8 * width)
    return _put(target, place, after.to_bytes(width, "little" if order == "little" else "big"))


def _copy(target: Target, chance: random.Random) -> str:
    """Bytes from elsewhere: entries that point to the same place, headers where data should be."""
    start, length = _place(target, chance), chance.choice([4, 8, 16, 64, 512, _LONGEST_COPY])
    return "copy: " + _put(target, _place(target, chance), bytes(target.data[start : start + length]))


def _fill(target: Target, chance: random.Random) -> str:
    length = chance.choice([4, 8, 16, 64, 512, _LONGEST_COPY])
    return f"{length} times " + _put(
        target, _place(target, chance), bytes([chance.choice([0, 0xFF])]) * length
    )


def _word(target: Target, chance: random.Random) -> str:
    """Another name or keyword over text or anything else."""
    return _put(target, _place(target, chance), chance.choice(target.words))


def _cut(target: Target, chance: random.Random) -> str:
    end = chance.choice([_place(target, chance), len(target.data) - chance.choice([1, 511, 512, 513, 4096])])
    del target.data[max(end, 0) :]
    return f"cut at {end}"


def _append(target: Target, chance: random.Random) -> str:
    length = chance.choice([1, 511, 512, 4096, 65536])
    target.data.extend(chance.randbytes(length) if chance.random() < 0.5 else bytes(length))
    return f"{length} bytes appended"


_WEIGHTED: tuple[tuple[Callable[[Target, random.Random], str], int], ...] = (
    (_flip, 4),
    (_byte, 4),
    (_number, 8),
    (_nudge, 8),
    (_copy, 3),
    (_fill, 2),
    (_word, 2),
    (_cut, 1),
    (_append, 1),
)
_ACTS = [act for act, _ in _WEIGHTED]
_WEIGHTS = [weight for _, weight in _WEIGHTED]
