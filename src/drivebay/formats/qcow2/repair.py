"""What can be put right in a QCOW2 image: reference counts, flags that rely on them, marks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import FileEdit, FileExtent, Files, FileWrite, Layer, RepairStep
from drivebay.blockmap.counts import pack_counts
from drivebay.formats.qcow2.check import examine
from drivebay.formats.qcow2.counts import StoredCounts, wanted_counts
from drivebay.formats.qcow2.faults import Faults
from drivebay.formats.qcow2.header import COPIED, INCOMPATIBLE_PLACE, REFCOUNT_PLACE, Header, Incompatible
from drivebay.formats.qcow2.image import Image, read_image
from drivebay.formats.qcow2.references import References

_MENDED = {"cut", "refcount-table", "refcount-low", "owned-wrongly"}
_DROPPED = {"outside", "unaligned"}  # but for those of a data file
_AT_ONCE = 1024  # entries that one step changes


def repair(files: Files, _layer: Layer) -> Iterator[RepairStep]:
    """Steps in an order that keeps the image whole. Raises StorageError if it can't be read.

    Entries that point to nothing go first: what is written behind the file's end would become theirs.
    """
    image = read_image(files)
    references, wrong = examine(files, image)
    yield from _filled_up(files, references)
    yield from _dropped(references)
    stored = StoredCounts(files, image.header, Faults())
    if not _is_sound(stored, references, wrong):
        references = References(files, image)  # without the structure that goes
        references.walk()
        references.finish()
        yield _new_counts(references, image)
    elif wrong:
        yield _right_counts(image.header, references, stored, wrong)
    flags = list(_wrong_flags(references))
    if flags:
        message = f"let {len(flags)} entries no longer say that their cluster is used once only"
        yield RepairStep(message, tuple(flags))
    mended = _MENDED if image.header.has_data_file else _MENDED | _DROPPED
    yield from _marks(image, references.faults.errors - mended)


def _filled_up(files: Files, references: References) -> Iterator[RepairStep]:
    if "cut" in references.faults.seen:
        missing = -files.size % references.cluster
        message = f"add the {missing} bytes of zeros that the last table lacks: what it had there stays lost"
        yield RepairStep(message, (FileExtent(files.size, missing),))


def _dropped(references: References) -> Iterator[RepairStep]:
    """None in a table that is also somebody's data."""
    places = (
        (place, length)
        for place, length in references.dangling()
        if place // references.cluster not in references.overlapping
    )
    while part := list(itertools.islice(places, _AT_ONCE)):
        message = (
            f"make {len(part)} entries absent that point to no cluster of the file (the first at offset "
            f"{part[0][0]}): what they stood for can't be read now, and will show the backing file, or "
            "zeros; unless the rest of the file can be restored, it is gone"
        )
        changes = tuple(FileWrite(place, bytes(length)) for place, length in part)
        yield RepairStep(message, changes, loses=True)


def _is_sound(stored: StoredCounts, references: References, wrong: list[int]) -> bool:
    """Whether the counts may be corrected where they are: nobody's data may lie there."""
    if "refcount-table" in references.faults.seen or any(block not in stored.blocks for block in wrong):
        return False
    return references.overlapping.isdisjoint(stored.clusters())


def _wrong_flags(references: References) -> Iterator[FileWrite]:
    """Flags taken back, but none in a table that is also somebody's data."""
    for flag in references.wrong_flags():
        if flag.offset // references.cluster not in references.overlapping:
            yield FileWrite(flag.offset, (flag.raw & ~COPIED).to_bytes(8, "big"))


def _right_counts(
    header: Header, references: References, stored: StoredCounts, wrong: list[int]
) -> RepairStep:
    changes = [
        FileWrite(stored.blocks[block], _packed(references.times, block, stored.per_block, header))
        for block in wrong
    ]
    seen = references.faults.seen
    low, high = (seen.get(code, (0, 0))[0] for code in ("refcount-low", "leak"))
    message = f"correct the reference counts of {low + high} clusters: {low} are too low, {high} too high"
    return RepairStep(message, tuple(changes))


def _packed(times: npt.NDArray[np.uint32], block: int, per_block: int, header: Header) -> bytes:
    most = (1 << min(header.refcount_bits, 32)) - 1
    wanted = wanted_counts(times, block, per_block)
    return pack_counts(np.minimum(wanted, most).astype(np.uint64), header.refcount_bits)


def _new_counts(references: References, image: Image) -> RepairStep:
    """A new table with new blocks behind the file's end; ``references`` leave out the old ones."""
    header = image.header
    per_block = header.cluster * 8 // header.refcount_bits
    used = len(references.times)
    blocks = table = 1
    while (wanted := _needs(used + blocks + table, per_block, header.cluster)) != (blocks, table):
        blocks, table = wanted
    times = np.concatenate([references.times, np.ones(blocks + table, np.uint32)])
    first = used * header.cluster
    changes: list[FileEdit] = [
        FileWrite(first + block * header.cluster, _packed(times, block, per_block, header))
        for block in range(blocks)
    ]
    root = first + blocks * header.cluster
    offsets = np.arange(first, root, header.cluster, dtype=np.uint64)
    changes.append(FileWrite(root, offsets.astype(">u8").tobytes().ljust(table * header.cluster, b"\0")))
    changes.append(FileWrite(REFCOUNT_PLACE, root.to_bytes(8, "big") + table.to_bytes(4, "big")))
    return RepairStep("write all reference counts anew, behind the file's end", tuple(changes))


def _needs(clusters: int, per_block: int, cluster: int) -> tuple[int, int]:
    blocks = -(-clusters // per_block)
    return blocks, -(-blocks * 8 // cluster)


def _marks(image: Image, remaining: set[str]) -> Iterator[RepairStep]:
    features = image.header.incompatible
    cleared = features & ~Incompatible.DIRTY
    if not remaining:
        cleared &= ~Incompatible.CORRUPT
    if cleared != features:
        change = FileWrite(INCOMPATIBLE_PLACE, cleared.to_bytes(8, "big"))
        yield RepairStep("say in the header that the image is whole", (change,))
