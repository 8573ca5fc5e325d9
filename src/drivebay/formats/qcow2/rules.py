"""What must hold in a QCOW2 header before anything in the file is believed."""

from __future__ import annotations

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.headers import HeaderRefusals, Rule
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
_REFUSALS = HeaderRefusals(
    "QCOW2 header",
    {
        ErrorKind.CORRUPT: "the header is damaged: restore the image from a copy",
        ErrorKind.UNSUPPORTED: "convert the image with 'qemu-img convert'",
    },
)
refusal = _REFUSALS.refusal  # for what hangs on the header


def read_header(files: Files) -> Header:
    """The header, each field held against the others and the file's size; no table is read.

    Unknown incompatible features are not looked at. Raises StorageError: CORRUPT for values that can't
    be, UNSUPPORTED for what drivebay doesn't know. The rules are those of docs/formats/qcow2.md.
    """
    data = files.read(0, 512)
    header = unpack(data)
    wanted = V2_LENGTH if header.version == 2 else V3_LENGTH
    _REFUSALS.require_length(files, data, wanted)
    _REFUSALS.require(_RULES, header, files)
    return header


def _length_holds(header: Header, _: int) -> bool:
    least = V2_LENGTH if header.version == 2 else V3_LENGTH
    return least <= header.length <= header.cluster and header.length % 8 == 0


def _compression_holds(header: Header, _: int) -> bool:
    return bool(header.incompatible & Incompatible.COMPRESSION) == (header.compression != 0)


_RULES: tuple[Rule[Header], ...] = (
    Rule("magic", "magic number", 0, lambda h, _: h.magic == MAGIC, f"it must be {MAGIC}"),
    Rule(
        "version",
        "version",
        4,
        lambda h, _: h.version in (2, 3),
        "drivebay knows only 2 and 3",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "cluster_bits",
        "cluster bits field",
        20,
        lambda h, _: MIN_CLUSTER_BITS <= h.cluster_bits <= MAX_CLUSTER_BITS,
        f"it must be from {MIN_CLUSTER_BITS} to {MAX_CLUSTER_BITS}",
    ),
    Rule(
        "length",
        "header length",
        100,
        _length_holds,
        f"it must be a multiple of 8 from {V3_LENGTH} to the cluster size",
    ),
    Rule(
        "crypt_method",
        "encryption method",
        32,
        lambda h, _: h.crypt_method == 0,
        "drivebay reads no encrypted QCOW2 images (1 is AES, 2 is LUKS)",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "refcount_order",
        "refcount order",
        96,
        lambda h, _: h.refcount_order <= 6,
        "it must be at most 6",
    ),
    Rule(
        "cluster_bits",
        "cluster bits field",
        20,
        lambda h, _: not h.extended or h.cluster_bits >= EXTENDED_CLUSTER_BITS,
        f"with extended L2 entries it must be at least {EXTENDED_CLUSTER_BITS}",
    ),
    Rule(
        "compression",
        "compression type",
        104,
        _compression_holds,
        "that contradicts the compression bit of the incompatible features",
    ),
    Rule(
        "compression",
        "compression type",
        104,
        lambda h, _: h.compression <= 1,
        "drivebay knows only 0 (zlib) and 1 (zstd)",
        ErrorKind.UNSUPPORTED,
    ),
    Rule("size", "disk size", 24, lambda h, _: 0 < h.size < 1 << 63, "it must be above 0 and below 2^63"),
    Rule(
        "backing_offset",
        "backing file name's offset",
        8,
        lambda h, _: h.backing_offset == 0 or h.length <= h.backing_offset <= h.cluster,
        "it must lie behind the header, in the first cluster",
    ),
    Rule(
        "backing_length",
        "backing file name's length",
        16,
        lambda h, _: (
            h.backing_offset == 0 or h.backing_length <= min(MAX_BACKING_NAME, h.cluster - h.backing_offset)
        ),
        f"it must be at most {MAX_BACKING_NAME}, and end in the first cluster",
    ),
    Rule(
        "l1_size",
        "number of L1 entries",
        36,
        lambda h, _: h.l1_size * 8 <= MAX_L1,
        f"the L1 table may take {MAX_L1} bytes at most",
    ),
    Rule(
        "l1_size",
        "number of L1 entries",
        36,
        lambda h, _: h.l1_size >= h.l1_needed,
        "the disk size needs more",
    ),
    Rule(
        "l1_offset",
        "L1 table's offset",
        40,
        lambda h, _: h.l1_offset > 0 and h.l1_offset % h.cluster == 0,
        "it must be a multiple of the cluster size, not 0",
    ),
    Rule(
        "l1_offset",
        "L1 table's offset",
        40,
        lambda h, size: h.l1_offset + h.l1_size * 8 <= size,
        "the table reaches beyond the file's end",
    ),
    Rule(
        "refcount_offset",
        "refcount table's offset",
        48,
        lambda h, _: h.refcount_offset > 0 and h.refcount_offset % h.cluster == 0,
        "it must be a multiple of the cluster size, not 0",
    ),
    Rule(
        "refcount_clusters",
        "refcount table's number of clusters",
        56,
        lambda h, _: 0 < h.refcount_clusters * h.cluster <= max(MAX_REFCOUNT_TABLE, h.cluster),
        f"it must be above 0, and the table may take {MAX_REFCOUNT_TABLE} bytes at most",
    ),
    Rule(
        "refcount_offset",
        "refcount table's offset",
        48,
        lambda h, size: h.refcount_offset + h.refcount_clusters * h.cluster <= size,
        "the table reaches beyond the file's end",
    ),
    Rule(
        "snapshots",
        "number of snapshots",
        60,
        lambda h, _: h.snapshots <= MAX_SNAPSHOTS,
        f"it must be at most {MAX_SNAPSHOTS}",
    ),
    Rule(
        "snapshots_offset",
        "snapshot table's offset",
        64,
        lambda h, _: h.snapshots == 0 or h.snapshots_offset % h.cluster == 0,
        "it must be a multiple of the cluster size",
    ),
)
