"""A walk over all tables of a QED image: what points where, and what points where it must not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.qed.header import ENTRY_SIZE, ZERO, Header

_CHUNK_ENTRIES = 1 << 18
Numbers = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


class References(NamedTuple):
    """Entries that point somewhere, as parallel arrays: where they lie, and their values (file offsets)."""

    places: Numbers
    values: Numbers

    def where(self, chosen: Flags) -> References:
        """Those that are chosen."""
        return References(self.places[chosen], self.values[chosen])


class Scan(NamedTuple):
    """What the walk found; memory goes by the number of clusters that entries point to.

    ``bad_tables`` and ``bad_data`` point into a cluster, into the header, or out of the file.
    ``shared_tables`` and ``shared_data`` point to a cluster that an earlier entry, or the L1 table, has.
    ``used`` is the number of different clusters that are in use.
    """

    bad_tables: References
    bad_data: References
    shared_tables: References
    shared_data: References
    used: int


def scan(files: Files, header: Header) -> Scan:
    """Read all tables; raises StorageError if the file can't be read. ``header`` was accepted."""
    pointers = _read_table(files, header.l1_offset, header.tables_needed)
    bad = _is_bad(header, pointers.values, header.table_bytes, files.size)
    tables = pointers.where(~bad)
    leaves = [_read_table(files, int(root), header.table_entries) for root in np.unique(tables.values)]
    data = _joined(leaves)
    data = data.where(data.values != ZERO)
    bad_data = _is_bad(header, data.values, header.cluster_size, files.size)
    good = data.where(~bad_data)
    return Scan(
        pointers.where(bad),
        data.where(bad_data),
        *_sharing(header, tables, good),
        _used(header, tables, good),
    )


def _read_table(files: Files, root: int, count: int) -> References:
    return _joined(list(_chunks(files, root, count)))


def _chunks(files: Files, root: int, count: int) -> Iterator[References]:
    """The entries that aren't 0, from so much of the table at a time."""
    for first in range(0, count, _CHUNK_ENTRIES):
        offset = root + first * ENTRY_SIZE
        length = min(_CHUNK_ENTRIES, count - first) * ENTRY_SIZE
        stored = files.read(offset, length)
        if len(stored) < length:
            message = (
                "the file became shorter while its tables were read; try again when nothing writes to it"
            )
            raise StorageError(ErrorKind.IO, message, path=files.path, offset=offset, operation="check")
        entries = np.frombuffer(stored, "<u8").astype(np.uint64)
        used = np.flatnonzero(entries).astype(np.uint64)
        yield References(used * np.uint64(ENTRY_SIZE) + np.uint64(offset), entries[used])


def _joined(parts: list[References]) -> References:
    nothing = np.zeros(0, np.uint64)
    return References(
        np.concatenate([nothing, *(part.places for part in parts)]),
        np.concatenate([nothing, *(part.values for part in parts)]),
    )


def _is_bad(header: Header, values: Numbers, length: int, file_size: int) -> Flags:
    last = max(file_size - length, 0)
    bad: Flags = (values & np.uint64(header.cluster_size - 1)) != 0
    bad |= (values < header.data_offset) | (values > last)
    return bad


def _clusters(header: Header, offsets: Numbers) -> Numbers:
    """The numbers of all clusters of the tables at ``offsets``, table by table."""
    first = offsets // np.uint64(header.cluster_size)
    spread = first[:, None] + np.arange(header.table_size, dtype=np.uint64)
    return spread.astype(np.uint64).ravel()


def _all_clusters(header: Header, tables: References, data: References) -> tuple[Numbers, int, int]:
    """The clusters of the L1 table, then those of L2 tables, then data; and where the parts begin."""
    roots = np.array([header.l1_offset], np.uint64)
    of_tables = _clusters(header, np.concatenate([roots, tables.values]))
    everything = np.concatenate([of_tables, data.values // np.uint64(header.cluster_size)])
    return everything, header.table_size, len(of_tables)


def _sharing(header: Header, tables: References, data: References) -> tuple[References, References]:
    clusters, tables_at, data_at = _all_clusters(header, tables, data)
    order = np.argsort(clusters, kind="stable")
    again = np.zeros(len(clusters), np.bool_)
    again[order[1:]] = clusters[order[1:]] == clusters[order[:-1]]
    shared_tables = np.logical_or.reduce(again[tables_at:data_at].reshape(-1, header.table_size), axis=1)
    return tables.where(shared_tables), data.where(again[data_at:])


def _used(header: Header, tables: References, data: References) -> int:
    return len(np.unique(_all_clusters(header, tables, data)[0]))
