"""New QCOW2 images: header, refcount table, its blocks, L1 table, and what is preallocated."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from drivebay.blockmap import CreateRequest, FileChange, FileExtent, FileWrite
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.backing import qemu_format, recorded_name
from drivebay.formats.qcow2.area import feature_names, pack_area
from drivebay.formats.qcow2.extensions import BACKING_FORMAT, DATA_FILE, Extension
from drivebay.formats.qcow2.header import COPIED, Header
from drivebay.formats.qcow2.options import Preallocation, Qcow2Options, check_name, header_of, options_of
from drivebay.formats.qcow2.rules import MAX_REFCOUNT_TABLE

_ONES = {1: 0xFF, 2: 0x55, 4: 0x11}  # a byte of counts that are all 1
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Layout:
    """How many clusters each structure takes; they lie in this order, behind the header."""

    table: int
    blocks: int
    l1: int
    leaves: int
    data: int

    @property
    def total(self) -> int:
        """Clusters in the file."""
        return 1 + self.table + self.blocks + self.l1 + self.leaves + self.data


def create(request: CreateRequest) -> Iterator[FileChange]:
    """The changes that make the image; the header comes last, so that half an image isn't one.

    Raises StorageError (INVALID) at once for what QCOW2 can't be.
    """
    options = options_of(request)
    header = header_of(request, options)
    placed = options.data_file_raw or options.preallocation is Preallocation.METADATA
    layout = lay_out(header, placed=placed)
    cluster = header.cluster
    header = replace(
        header,
        refcount_offset=cluster,
        refcount_clusters=layout.table,
        l1_offset=cluster * (1 + layout.table + layout.blocks),
        l1_size=header.l1_needed,
    )
    area = pack_area(header, _extensions(request, options), _backing(request))
    return _changes(header, layout, area, options.data_file)


def lay_out(header: Header, *, placed: bool) -> Layout:
    """The layout of a new image, whose clusters are all there if ``placed``. Raises INVALID."""
    l1 = -(-header.l1_needed * 8 // header.cluster)
    leaves = header.l1_needed if placed else 0
    data = -(-header.size // header.cluster) if placed and not header.has_data_file else 0
    per_block = header.cluster * 8 // header.refcount_bits
    layout = Layout(1, 1, l1, leaves, data)
    while True:
        blocks = -(-layout.total // per_block)
        wanted = replace(layout, blocks=blocks, table=-(-blocks * 8 // header.cluster))
        if wanted == layout:
            break
        layout = wanted
    if layout.table * header.cluster > max(MAX_REFCOUNT_TABLE, header.cluster):
        raise StorageError(
            ErrorKind.INVALID,
            "the disk is too large for preallocation: its refcount table would be; use larger clusters",
            operation="create",
        )
    return layout


def _extensions(request: CreateRequest, options: Qcow2Options) -> Iterator[Extension]:
    if request.parent is not None:
        yield Extension(BACKING_FORMAT, qemu_format(request.parent.format).encode(), 0)
    if options.data_file:
        yield Extension(DATA_FILE, options.data_file.encode("utf-8", "surrogateescape"), 0)
    if options.variant != "v2":
        yield feature_names()


def _backing(request: CreateRequest) -> bytes:
    return check_name(recorded_name(request.parent.path)) if request.parent else b""


def _changes(header: Header, layout: Layout, area: bytes, data_file: str) -> Iterator[FileChange]:
    cluster = header.cluster
    yield FileExtent(0, layout.total * cluster)
    if data_file:
        yield FileExtent(0, header.size, file=data_file)
    first_block = 1 + layout.table
    yield FileWrite(cluster, _entries(first_block * cluster, layout.blocks, cluster))
    per_block = cluster * 8 // header.refcount_bits
    for block in range(layout.blocks):
        count = min(per_block, layout.total - block * per_block)
        yield FileWrite((first_block + block) * cluster, packed_ones(count, header.refcount_bits))
    if layout.leaves:
        yield from _leaves(header, layout)
    yield FileWrite(0, area)


def _leaves(header: Header, layout: Layout) -> Iterator[FileWrite]:
    cluster, per_leaf = header.cluster, header.per_leaf
    first = header.l1_offset + layout.l1 * cluster
    data = 0 if header.has_data_file else first + layout.leaves * cluster
    yield FileWrite(header.l1_offset, _entries(first | COPIED, layout.leaves, cluster))
    blocks = -(-header.size // cluster)
    for leaf in range(layout.leaves):
        for index in range(0, min(per_leaf, blocks - leaf * per_leaf), _CHUNK):
            begin = leaf * per_leaf + index
            count = min(_CHUNK, per_leaf - index, blocks - begin)
            entries = _entries(data + begin * cluster | COPIED, count, cluster)
            yield FileWrite(first + leaf * cluster + index * header.step, _beside(entries, header))


def _beside(entries: bytes, header: Header) -> bytes:
    if not header.extended:
        return entries
    pieces = (entries[start : start + 8] for start in range(0, len(entries), 8))
    return b"".join(piece + b"\0\0\0\0\xff\xff\xff\xff" for piece in pieces)


def _entries(first: int, count: int, step: int) -> bytes:
    return struct.pack(f">{count}Q", *range(first, first + count * step, step))


def packed_ones(count: int, bits: int) -> bytes:
    """``count`` reference counts of 1."""
    if bits >= 8:
        return (1).to_bytes(bits // 8, "big") * count
    whole, rest = divmod(count, 8 // bits)
    last = _ONES[bits] & ((1 << rest * bits) - 1)
    return bytes([_ONES[bits]]) * whole + (bytes([last]) if rest else b"")
