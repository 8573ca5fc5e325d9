"""What a repair of a QED image would do: drop dead pointers, part shared clusters, clear the flag."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import FileCopy, FileExtent, Files, FileWrite, Layer, RepairStep
from drivebay.formats.qed.header import ABSENT, ENTRY_SIZE, FEATURES_OFFSET, NEED_CHECK, Header, read_header
from drivebay.formats.qed.tables import References, scan

_AT_ONCE = 1024  # entries that one step changes


def repair(files: Files, _layer: Layer) -> Iterator[RepairStep]:
    """The steps that make the image sound; nothing for a sound one. Raises StorageError if it can't be read.

    An L2 table that two L1 entries share stays as it is: the image can be read, and must be converted.
    """
    header = read_header(files)
    found = scan(files, header)
    yield from _parted(files, header, found.shared_data)  # first: a table may be somebody's data
    yield from _dropped(found.bad_tables, "L1")
    yield from _dropped(found.bad_data, "L2")
    if header.features & NEED_CHECK and not len(found.shared_tables.values):
        features = header.features & ~NEED_CHECK
        clear = FileWrite(FEATURES_OFFSET, features.to_bytes(8, "little"))
        yield RepairStep("clear the flag that asks for a check", (clear,))


def _dropped(entries: References, level: str) -> Iterator[RepairStep]:
    absent = ABSENT.to_bytes(ENTRY_SIZE, "little")
    for first in range(0, len(entries.places), _AT_ONCE):
        places = entries.places[first : first + _AT_ONCE].tolist()
        message = (
            f"make {len(places)} {level} entries absent that point where no cluster is (the first at offset "
            f"{places[0]}): what they stood for can't be read now, and will show the backing file, or zeros"
        )
        yield RepairStep(message, tuple(FileWrite(place, absent) for place in places))


def _parted(files: Files, header: Header, shared: References) -> Iterator[RepairStep]:
    """Each entry but the first gets a copy of the cluster at the file's end: all read as before."""
    size = header.cluster_size
    end = files.size + -files.size % size
    for place, offset in zip(shared.places.tolist(), shared.values.tolist(), strict=True):
        message = f"give the L2 entry at offset {place} its own copy of the shared cluster at {offset}"
        changes = (
            FileExtent(end, size),
            FileCopy(offset, end, size),
            FileWrite(place, end.to_bytes(ENTRY_SIZE, "little")),
        )
        yield RepairStep(message, changes)
        end += size
