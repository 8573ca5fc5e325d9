"""New QED images: a header cluster, an empty L1 table, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from drivebay.blockmap import CreateRequest, FileChange, FileExtent, FileWrite, FormatOptions, ParentLink
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.headers import is_power
from drivebay.formats.qed.header import (
    BACKING_FILE,
    HEADER_SIZE,
    MAGIC,
    MAX_CLUSTER,
    MAX_NAME,
    MAX_TABLE,
    MIN_CLUSTER,
    NO_PROBE,
    Header,
)
from drivebay.model import SECTOR

DEFAULT_CLUSTER = 64 << 10
DEFAULT_TABLE = 4
VARIANTS = ("dynamic", "differencing")


@dataclass(frozen=True, slots=True)
class QedOptions(FormatOptions):
    """What a QED image can be asked for; ``block_size`` is the cluster size."""

    table_size: int = field(
        default=DEFAULT_TABLE,
        metadata={"help": "clusters in each L1 and L2 table: 1 (which QEMU cannot open), 2, 4, 8 or 16"},
    )


def create(request: CreateRequest) -> Iterator[FileChange]:
    """The changes that make the image; the header comes last, so that half an image isn't one.

    Raises StorageError (INVALID) at once for what QED can't be.
    """
    _check_variant(request)
    name = _backing_name(request.parent)
    return _changes(_header(request, name), name)


def _changes(header: Header, name: bytes) -> Iterator[FileChange]:
    yield FileExtent(0, header.data_offset + header.table_bytes)
    yield FileWrite(0, header.pack() + name)


def _header(request: CreateRequest, name: bytes) -> Header:
    cluster = request.options.block_size or DEFAULT_CLUSTER
    options = request.options
    table = options.table_size if isinstance(options, QedOptions) else DEFAULT_TABLE
    _require(
        is_power(cluster, MIN_CLUSTER, MAX_CLUSTER),
        f"a cluster size of {cluster} is not possible; use a power of two from 4 KiB to 64 MiB",
    )
    _require(
        is_power(table, 1, MAX_TABLE), f"a table of {table} clusters is not possible; use 1, 2, 4, 8 or 16"
    )
    header = Header(
        magic=MAGIC,
        cluster_size=cluster,
        table_size=table,
        header_size=1,
        features=_features(request.parent),
        compat_features=0,
        autoclear_features=0,
        l1_offset=cluster,
        size=request.size,
        name_offset=HEADER_SIZE if name else 0,
        name_size=len(name),
    )
    most = header.table_entries**2 * cluster
    _require(
        request.size % SECTOR == 0 and 0 < request.size <= most,
        f"a QED image of {request.size} bytes is not possible; give a multiple of {SECTOR} up to {most}, "
        "or larger clusters",
    )
    return header


def _check_variant(request: CreateRequest) -> None:
    variant = request.options.variant or ("differencing" if request.parent else "dynamic")
    _require(variant in VARIANTS, f"QED has no variant {variant!r}; use one of: {', '.join(VARIANTS)}")
    _require(
        (variant == "differencing") == (request.parent is not None),
        "a differencing image needs a parent, and a dynamic one has none; name a parent with --parent, "
        "or leave the variant out",
    )
    _require(not request.comment, "QED holds no comment; leave it out")


def _backing_name(parent: ParentLink | None) -> bytes:
    return encode_name(parent.path, "create") if parent else b""


def encode_name(path: str, operation: str) -> bytes:
    """The backing file's name as it is stored; raises StorageError (INVALID)."""
    name = path.encode("utf-8", "surrogateescape")
    if not 0 < len(name) <= MAX_NAME or b"\0" in name:
        message = (
            f"the parent's path has {len(name)} bytes, but QED takes 1 to {MAX_NAME}, none of them NUL; "
            "move the parent nearer to the image"
        )
        raise StorageError(ErrorKind.INVALID, message, operation=operation)
    return name


def _features(parent: ParentLink | None) -> int:
    if parent is None:
        return 0
    return BACKING_FILE | (NO_PROBE if parent.format == "raw" else 0)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise StorageError(ErrorKind.INVALID, message, operation="create")
