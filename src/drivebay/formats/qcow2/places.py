"""Where the blocks of a data file lie: each must have the place that it has on the disk."""

from __future__ import annotations

import numpy as np

from drivebay.formats.qcow2.header import COMPRESSED, COPIED, OFFSET_MASK
from drivebay.formats.qcow2.references import References


def find_misplaced(references: References) -> None:
    """Add to the faults the entries of the active tables that use another place, or share theirs."""
    header = references.image.header
    leaves = references.read_words(header.l1_offset, header.l1_needed * 8) & np.uint64(OFFSET_MASK)
    sound = (leaves > 0) & (leaves % np.uint64(header.cluster) == 0) & (leaves < references.files.size)
    for number in np.flatnonzero(sound).tolist():
        begin = int(leaves[number])
        raw = references.read_words(begin, header.cluster)[:: header.step // 8]
        first = number * header.per_leaf
        own = np.arange(first, first + header.per_leaf, dtype=np.uint64) * np.uint64(header.cluster)
        used = (raw & np.uint64(OFFSET_MASK | COPIED) > 0) & (raw & np.uint64(COMPRESSED) == 0)
        wrong = used & (raw & np.uint64(OFFSET_MASK | COPIED) != own | np.uint64(COPIED))
        if wrong.any():
            references.faults.add("misplaced", begin + int(wrong.argmax()) * header.step, int(wrong.sum()))
