"""What can be chosen when a QCOW2 image is made, and what goes together."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field, replace

from drivebay.blockmap import CreateRequest, FormatOptions
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.qcow2.header import MAX_BACKING_NAME, NEW_LENGTH, V2_LENGTH, Header, Incompatible
from drivebay.formats.qcow2.rules import EXTENDED_CLUSTER_BITS, MAX_CLUSTER_BITS, MAX_L1, MIN_CLUSTER_BITS
from drivebay.model import SECTOR

VARIANTS = ("v3", "v2")
DEFAULT_CLUSTER = 64 << 10


class Compression(enum.Enum):
    """How compressed clusters are packed."""

    ZLIB = "zlib"
    ZSTD = "zstd"


class Preallocation(enum.Enum):
    """What a new image has already."""

    OFF = "off"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Qcow2Options(FormatOptions):
    """``block_size`` is the cluster size."""

    refcount_bits: int = field(
        default=16, metadata={"help": "width of a reference count: 1, 2, 4 ... 64 bits"}
    )
    extended_l2: bool = field(default=False, metadata={"help": "32 subclusters in each cluster"})
    data_file: str = field(default="", metadata={"help": "name of a second file, which gets the data"})
    data_file_raw: bool = field(
        default=False, metadata={"help": "the second file, NAME-data.raw unless named, is a raw disk"}
    )
    compression_type: Compression = field(
        default=Compression.ZLIB, metadata={"help": "how compressed clusters are packed"}
    )
    preallocation: Preallocation = field(
        default=Preallocation.OFF, metadata={"help": "give each cluster its place now"}
    )
    lazy_refcounts: bool = field(
        default=False, metadata={"help": "QEMU may postpone reference counts; drivebay never does"}
    )


def options_of(request: CreateRequest) -> Qcow2Options:
    """The request's options, validated. Raises StorageError (INVALID)."""
    options = request.options
    if not isinstance(options, Qcow2Options):
        options = Qcow2Options(variant=options.variant, block_size=options.block_size)
    cluster = options.block_size or DEFAULT_CLUSTER
    _check_cluster(cluster, options)
    bits = options.refcount_bits
    _require(
        1 <= bits <= 64 and bits & (bits - 1) == 0,
        f"reference counts of {bits} bits are not possible; use 1, 2, 4, 8, 16, 32 or 64",
    )
    variant = options.variant or VARIANTS[0]
    _require(variant in VARIANTS, f"qcow2 has no variant {variant!r}; use {' or '.join(VARIANTS)}")
    if options.data_file_raw and not options.data_file:
        options = replace(options, data_file=f"{os.path.splitext(request.name)[0]}-data.raw")
    _check_version(variant, options)
    _check_data_file(request, options)
    _require(not request.comment, "qcow2 has no place for a comment; leave it out")
    most = MAX_L1 // 8 * (cluster // (16 if options.extended_l2 else 8)) * cluster
    _require(
        request.size > 0 and request.size % SECTOR == 0 and request.size <= most,
        f"a qcow2 of {request.size} bytes with clusters of {cluster} is not possible; "
        f"give a multiple of {SECTOR} up to {most}, or larger clusters",
    )
    return options


def _check_cluster(cluster: int, options: Qcow2Options) -> None:
    least = 1 << (EXTENDED_CLUSTER_BITS if options.extended_l2 else MIN_CLUSTER_BITS)
    most = 1 << MAX_CLUSTER_BITS
    _require(
        least <= cluster <= most and cluster & (cluster - 1) == 0,
        f"a cluster size of {cluster} is not possible; use a power of two from {least} to {most}",
    )


def _check_version(variant: str, options: Qcow2Options) -> None:
    newer = {
        "a width of reference counts other than 16": options.refcount_bits != 16,
        "extended L2 entries": options.extended_l2,
        "a data file": bool(options.data_file),
        "another compression than zlib": options.compression_type is not Compression.ZLIB,
        "lazy reference counts": options.lazy_refcounts,
    }
    for what, wanted in newer.items():
        _require(variant != "v2" or not wanted, f"version 2 has no {what}; use the variant v3")


def _check_data_file(request: CreateRequest, options: Qcow2Options) -> None:
    name = options.data_file
    _require(
        "/" not in name and "\0" not in name and (not name or name not in (request.name, ".", "..")),
        f"the data file can't be called {name!r}; give a name of its own, without a folder",
    )
    placed = options.data_file_raw or options.preallocation is Preallocation.METADATA
    _require(
        request.parent is None or not placed,
        "an image on a parent can't have all its clusters in place: they would hide the parent; "
        "leave preallocation and data_file_raw out",
    )


def header_of(request: CreateRequest, options: Qcow2Options) -> Header:
    """The header as far as the options decide it; no place is given to anything yet."""
    features = Incompatible.EXTENDED_L2 if options.extended_l2 else Incompatible(0)
    features |= Incompatible.DATA_FILE if options.data_file else 0
    zstd = options.compression_type is Compression.ZSTD
    features |= Incompatible.COMPRESSION if zstd else 0
    old = options.variant == "v2"
    return Header(
        version=2 if old else 3,
        length=V2_LENGTH if old else NEW_LENGTH,
        cluster_bits=(options.block_size or DEFAULT_CLUSTER).bit_length() - 1,
        size=request.size,
        incompatible=int(features),
        compatible=int(options.lazy_refcounts),
        autoclear=2 if options.data_file_raw else 0,
        refcount_order=options.refcount_bits.bit_length() - 1,
        compression=int(zstd),
    )


def check_name(name: bytes) -> bytes:
    """The name of a backing file, if it may be one. Raises StorageError (INVALID)."""
    _require(
        0 < len(name) <= MAX_BACKING_NAME and b"\0" not in name,
        f"the parent's path has {len(name)} bytes, but {MAX_BACKING_NAME} are the most; move them closer",
    )
    return name


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise StorageError(ErrorKind.INVALID, message, operation="create")
