"""Reference counts of 1 to 64 bits, as `Refcounts` says that they are stored, to numbers and back.

Apart from the rest of the vocabulary, for it brings numpy, which opening an image does without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.unsignedinteger[Any]]


def unpack_counts(data: bytes, bits: int) -> Counts:
    """The counts in ``data``, in an array of its own."""
    if bits >= 8:
        return np.frombuffer(data, f">u{bits // 8}").astype(f"u{bits // 8}")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed = np.frombuffer(data, np.uint8)[:, np.newaxis]
    return ((packed >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)


def pack_counts(counts: Counts, bits: int) -> bytes:
    """The bytes of ``counts``, which are as many as whole bytes hold."""
    if bits >= 8:
        return counts.astype(f">u{bits // 8}").tobytes()
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = counts.reshape(-1, 8 // bits).astype(np.uint8) << shifts
    packed: Counts = np.bitwise_or.reduce(parts, axis=1)
    return packed.tobytes()
