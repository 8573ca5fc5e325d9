"""What must hold in a QCOW2 header before anything in the file is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.qcow2.header import (
    MAGIC,
    MAX_BACKING_NAME,
    V2_LENGTH,
    V3_LENGTH,
    Header,
    Incompatible,
    unpack,
)

MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
EXTENDED_CLUSTER_BITS = 14
MAX_L1 = 32 << 20
MAX_REFCOUNT_TABLE = 8 << 20
MAX_SNAPSHOTS = 65536
_REMEDIES = {
    ErrorKind.CORRUPT: "the header is damaged: restore the image from a copy",
    ErrorKind.UNSUPPORTED: "convert the image with 'qemu-img convert'",
}


class _Subject(NamedTuple):
    """What a rule may look at. Later rules rely on earlier ones."""

    header: Header
    file_size: int


class _Rule(NamedTuple):
    field: str
    label: str
    offset: int
    holds: Callable[[_Subject], bool]
    demand: str
    kind: ErrorKind = ErrorKind.CORRUPT


def read_header(files: Files) -> Header:
    """The header, each field held against the others and the file's size; no table is read.

    Unknown incompatible features are not looked at. Raises StorageError: CORRUPT for values that can't
    be, UNSUPPORTED for what drivebay doesn't know. The rules are those of docs/formats/qcow2.md.
    """
    data = files.read(0, 512)
    header = unpack(data)
    wanted = V2_LENGTH if header.version == 2 else V3_LENGTH
    if len(data) < wanted:
        what = f"the file ends within the QCOW2 header, after {len(data)} of {wanted} bytes"
        raise refusal(files, what, len(data))
    for rule in _RULES:
        if not rule.holds(_Subject(header, files.size)):
            value = getattr(header, rule.field)
            what = f"QCOW2 header: the {rule.label} is {value}, but {rule.demand}"
            raise refusal(files, what, rule.offset, rule.kind)
    return header


def refusal(files: Files, what: str, offset: int, kind: ErrorKind = ErrorKind.CORRUPT) -> StorageError:
    """The error for an image that can't be opened because of ``what``, found at ``offset``."""
    return StorageError(kind, f"{what}; {_REMEDIES[kind]}", path=files.path, offset=offset, operation="open")


def _within(start: int, length: int, subject: _Subject) -> bool:
    return start + length <= subject.file_size


def _length_holds(subject: _Subject) -> bool:
    header = subject.header
    least = V2_LENGTH if header.version == 2 else V3_LENGTH
    return least <= header.length <= header.cluster and header.length % 8 == 0


def _compression_holds(subject: _Subject) -> bool:
    return bool(subject.header.incompatible & Incompatible.COMPRESSION) == (subject.header.compression != 0)


_RULES = (
    _Rule("magic", "magic number", 0, lambda s: s.header.magic == MAGIC, f"it must be {MAGIC}"),
    _Rule(
        "version",
        "version",
        4,
        lambda s: s.header.version in (2, 3),
        "drivebay knows only 2 and 3",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "cluster_bits",
        "cluster bits field",
        20,
        lambda s: MIN_CLUSTER_BITS <= s.header.cluster_bits <= MAX_CLUSTER_BITS,
        f"it must be from {MIN_CLUSTER_BITS} to {MAX_CLUSTER_BITS}",
    ),
    _Rule(
        "length",
        "header length",
        100,
        _length_holds,
        f"it must be a multiple of 8 from {V3_LENGTH} to the cluster size",
    ),
    _Rule(
        "crypt_method",
        "encryption method",
        32,
        lambda s: s.header.crypt_method == 0,
        "drivebay reads no encrypted QCOW2 images",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "refcount_order",
        "refcount order",
        96,
        lambda s: s.header.refcount_order <= 6,
        "it must be at most 6",
    ),
    _Rule(
        "cluster_bits",
        "cluster bits field",
        20,
        lambda s: not s.header.extended or s.header.cluster_bits >= EXTENDED_CLUSTER_BITS,
        f"with extended L2 entries it must be at least {EXTENDED_CLUSTER_BITS}",
    ),
    _Rule(
        "compression",
        "compression type",
        104,
        _compression_holds,
        "that contradicts the compression bit of the incompatible features",
    ),
    _Rule(
        "compression",
        "compression type",
        104,
        lambda s: s.header.compression <= 1,
        "drivebay knows only 0 (zlib) and 1 (zstd)",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "size", "disk size", 24, lambda s: 0 < s.header.size < 1 << 63, "it must be above 0 and below 2^63"
    ),
    _Rule(
        "backing_offset",
        "backing file name's offset",
        8,
        lambda s: (
            s.header.backing_offset == 0 or s.header.length <= s.header.backing_offset <= s.header.cluster
        ),
        "it must lie behind the header, in the first cluster",
    ),
    _Rule(
        "backing_length",
        "backing file name's length",
        16,
        lambda s: (
            s.header.backing_offset == 0
            or s.header.backing_length <= min(MAX_BACKING_NAME, s.header.cluster - s.header.backing_offset)
        ),
        f"it must be at most {MAX_BACKING_NAME}, and end in the first cluster",
    ),
    _Rule(
        "l1_size",
        "number of L1 entries",
        36,
        lambda s: s.header.l1_size * 8 <= MAX_L1,
        f"the L1 table may take {MAX_L1} bytes at most",
    ),
    _Rule(
        "l1_size",
        "number of L1 entries",
        36,
        lambda s: s.header.l1_size >= s.header.l1_needed,
        "the disk size needs more",
    ),
    _Rule(
        "l1_offset",
        "L1 table's offset",
        40,
        lambda s: s.header.l1_offset > 0 and s.header.l1_offset % s.header.cluster == 0,
        "it must be a multiple of the cluster size, not 0",
    ),
    _Rule(
        "l1_offset",
        "L1 table's offset",
        40,
        lambda s: _within(s.header.l1_offset, s.header.l1_size * 8, s),
        "the table reaches beyond the file's end",
    ),
    _Rule(
        "refcount_offset",
        "refcount table's offset",
        48,
        lambda s: s.header.refcount_offset > 0 and s.header.refcount_offset % s.header.cluster == 0,
        "it must be a multiple of the cluster size, not 0",
    ),
    _Rule(
        "refcount_clusters",
        "refcount table's number of clusters",
        56,
        lambda s: (
            0 < s.header.refcount_clusters * s.header.cluster <= max(MAX_REFCOUNT_TABLE, s.header.cluster)
        ),
        f"it must be above 0, and the table may take {MAX_REFCOUNT_TABLE} bytes at most",
    ),
    _Rule(
        "refcount_offset",
        "refcount table's offset",
        48,
        lambda s: _within(s.header.refcount_offset, s.header.refcount_clusters * s.header.cluster, s),
        "the table reaches beyond the file's end",
    ),
    _Rule(
        "snapshots",
        "number of snapshots",
        60,
        lambda s: s.header.snapshots <= MAX_SNAPSHOTS,
        f"it must be at most {MAX_SNAPSHOTS}",
    ),
    _Rule(
        "snapshots_offset",
        "snapshot table's offset",
        64,
        lambda s: s.header.snapshots == 0 or s.header.snapshots_offset % s.header.cluster == 0,
        "it must be a multiple of the cluster size",
    ),
)
