"""Where the blocks of a data file lie: each must have the place that it has on the disk, and be there."""

from __future__ import annotations

import numpy as np

from drivebay.formats.qcow2.header import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from drivebay.formats.qcow2.references import References
from drivebay.model import SECTOR


def find_misplaced(references: References) -> None:
    """Add to the faults the entries that use another place, share theirs, or have it behind the file's end.

    Only those of the active tables. Raises StorageError where the data file can't be opened.
    """
    header, name = references.image.header, references.image.data_file
    assert name is not None
    end = references.files.beside(name).size
    leaves = references.read_words(header.l1_offset, header.l1_needed * 8) & np.uint64(OFFSET_MASK)
    sound = (leaves > 0) & (leaves % np.uint64(header.cluster) == 0) & (leaves < references.files.size)
    for number in np.flatnonzero(sound).tolist():
        begin = int(leaves[number])
        raw = references.read_words(begin, header.cluster)[:: header.step // 8]
        first = number * header.per_leaf
        own = np.arange(first, first + header.per_leaf, dtype=np.uint64) * np.uint64(header.cluster)
        used = (raw & np.uint64(OFFSET_MASK | COPIED) > 0) & (raw & np.uint64(COMPRESSED) == 0)
        wrong = used & (raw & np.uint64(OFFSET_MASK | COPIED) != own | np.uint64(COPIED))
        beyond = used & ~wrong & (own + np.uint64(SECTOR) > end)
        if not header.extended:
            beyond &= raw & np.uint64(ZERO) == 0
        for code, found in (("misplaced", wrong), ("outside", beyond)):
            if found.any():
                references.faults.add(code, begin + int(found.argmax()) * header.step, int(found.sum()))
