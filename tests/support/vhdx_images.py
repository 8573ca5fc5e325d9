"""Small VHDX images from scratch, laid out by the specification (MS-VHDX), with anything made wrong.

The file: header section, log at 1 MiB, BAT at 2 MiB, metadata at 3 MiB, blocks from 4 MiB on.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from uuid import UUID

from drivebay.crc32c import crc32c

MIB = 1 << 20
LOG, BAT, METADATA, DATA = MIB, 2 * MIB, 3 * MIB, 4 * MIB
PRESENT, PARTIAL, ZERO = 6, 7, 2
RATIO = 4096  # blocks of 1 MiB that share a bitmap, with sectors of 512 bytes

GUIDS = {
    "bat": UUID("2dc27766-f623-4200-9d64-115e9bfd4a08"),
    "metadata": UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e"),
    "parameters": UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b"),
    "size": UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8"),
    "id": UUID("beca12ab-b2e6-4523-93ef-c309e000c746"),
    "logical": UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f"),
    "physical": UUID("cda348c7-445d-4471-9cc9-e9885251c556"),
    "locator": UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"),
    "vhdx locator": UUID("b04aefb7-d19e-4a81-b789-25b8e9445913"),
}
DISK_ID = UUID("64ec0bb8-d069-4d4d-8d13-364cc113390a")
FILE_WRITE = UUID("e4136872-3e86-4e4c-a576-fba859e65979")
DATA_WRITE = UUID("a76bda13-ab98-4541-b552-8f61b5cbdba7")
LOG_GUID = UUID("6c872b87-f824-4d41-80b2-e46fc990b0f8")
LINKAGE = UUID("83ed0ec3-24c8-49a6-a959-5e4bf1288bfb")
PARENT = {"parent_linkage": f"{{{LINKAGE}}}", "relative_path": ".\\base.vhdx"}

Items = Sequence[tuple[UUID, bytes, int]]
LogChange = tuple[int, bytes | int]


def with_checksum(data: bytes) -> bytes:
    """``data`` with its CRC-32C in bytes 4 to 7."""
    return data[:4] + struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]


def header(
    sequence: int = 7,
    *,
    log_guid: UUID | None = None,
    data_write: UUID = DATA_WRITE,
    versions: tuple[int, int] = (0, 1),
    log: tuple[int, int] = (MIB, LOG),
) -> bytes:
    """A header; ``versions`` are the log's and the format's, ``log`` is its length and offset."""
    guids = (FILE_WRITE, data_write, log_guid or UUID(int=0))
    fields = struct.pack(
        "<4sIQ16s16s16sHHIQ", b"head", 0, sequence, *(g.bytes_le for g in guids), *versions, *log
    )
    return with_checksum(fields.ljust(4096, b"\0"))


def region_table(
    regions: Sequence[tuple[UUID, int, int, int]] = (
        (GUIDS["bat"], BAT, MIB, 1),
        (GUIDS["metadata"], METADATA, MIB, 1),
    ),
) -> bytes:
    """A region table of ``(guid, offset, length, required)``."""
    entries = b"".join(struct.pack("<16sQII", g.bytes_le, *rest) for g, *rest in regions)
    table = struct.pack("<4sIII", b"regi", 0, len(regions), 0) + entries
    return with_checksum(table.ljust(64 << 10, b"\0"))


def items(
    size: int = 4 * MIB,
    *,
    block: int = MIB,
    flags: int = 0,
    sectors: tuple[int, int] = (512, 512),
    locator: bytes | None = None,
) -> list[tuple[UUID, bytes, int]]:
    """The metadata items as ``(guid, value, flags)``."""
    found = [
        (GUIDS["parameters"], struct.pack("<II", block, flags), 4),
        (GUIDS["size"], struct.pack("<Q", size), 6),
        (GUIDS["id"], DISK_ID.bytes_le, 6),
        (GUIDS["logical"], struct.pack("<I", sectors[0]), 6),
        (GUIDS["physical"], struct.pack("<I", sectors[1]), 6),
    ]
    return found + ([(GUIDS["locator"], locator, 4)] if locator is not None else [])


def locator(values: Mapping[str, str], kind: UUID = GUIDS["vhdx locator"]) -> bytes:
    """A parent locator."""
    where = 20 + 12 * len(values)
    table, strings = b"", b""
    for key, value in values.items():
        name, text = key.encode("utf-16-le"), value.encode("utf-16-le")
        start = where + len(strings)
        table += struct.pack("<IIHH", start, start + len(name), len(name), len(text))
        strings += name + text
    return kind.bytes_le + struct.pack("<HH", 0, len(values)) + table + strings


def metadata_region(wanted: Items) -> bytes:
    """The table, and the items behind each other from 64 KiB on."""
    table = struct.pack("<8sHH20s", b"metadata", 0, len(wanted), bytes(20))
    values = b""
    for guid, value, flags in wanted:
        offset = (64 << 10) + len(values) if value else 0
        table += struct.pack("<16sIIII", guid.bytes_le, offset, len(value), flags, 0)
        values += value
    return table.ljust(64 << 10, b"\0") + values


def make_image(
    *,
    entries: Mapping[int, int] | None = None,
    units: int = 0,
    headers: tuple[bytes, bytes] | None = None,
    tables: tuple[bytes, bytes] | None = None,
    metadata: bytes | None = None,
    log: bytes = b"",
) -> bytes:
    """An image with the BAT ``entries`` by number, and ``units`` MiBs of data, filled with 1, 2, 3..."""
    data = bytearray(DATA)
    data[:8] = b"vhdxfile"
    creator = "a test".encode("utf-16-le")
    data[8 : 8 + len(creator)] = creator
    for offset, piece in zip((64 << 10, 128 << 10), headers or (header(7), header(6)), strict=True):
        data[offset : offset + len(piece)] = piece
    for offset, piece in zip((192 << 10, 256 << 10), tables or (region_table(), region_table()), strict=True):
        data[offset : offset + len(piece)] = piece
    data[LOG : LOG + len(log)] = log
    for number, raw in (entries or {}).items():
        struct.pack_into("<Q", data, BAT + 8 * number, raw)
    region = metadata_region(items()) if metadata is None else metadata
    data[METADATA : METADATA + len(region)] = region
    for unit in range(units):
        data += bytes([unit + 1]) * MIB
    return bytes(data)


def child(
    *,
    entries: Mapping[int, int] | None = None,
    units: int = 0,
    values: Mapping[str, str] | None = None,
    size: int = 4 * MIB,
) -> bytes:
    """A differencing image."""
    region = metadata_region(items(size, flags=2, locator=locator(PARENT if values is None else values)))
    return make_image(entries=entries, units=units, metadata=region)


def log_entry(
    changes: Sequence[LogChange],
    *,
    sequence: int = 1,
    tail: int = 0,
    flushed: int = DATA,
    last: int = DATA,
    guid: UUID = LOG_GUID,
) -> bytes:
    """A log entry; a change is an offset with 4096 bytes, or with a number of zeros."""
    table = 64 + 32 * len(changes)
    table += -table % 4096
    descriptors, sectors = b"", b""
    for offset, new in changes:
        if isinstance(new, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, new, offset, sequence)
            continue
        descriptors += struct.pack("<4s4s8sQQ", b"desc", new[-4:], new[:8], offset, sequence)
        sectors += struct.pack("<4sI", b"data", sequence >> 32) + new[8:-4]
        sectors += struct.pack("<I", sequence & 0xFFFFFFFF)
    length = table + len(sectors)
    start = struct.pack(
        "<4sIIIQII16sQQ",
        b"loge",
        0,
        length,
        tail,
        sequence,
        len(changes),
        0,
        guid.bytes_le,
        flushed,
        last,
    )
    return with_checksum((start + descriptors).ljust(table, b"\0") + sectors)


def ring(pieces: Mapping[int, bytes], length: int = MIB) -> bytes:
    """A log with ``pieces`` at their offsets, around its end."""
    data = bytearray(length)
    for start, piece in pieces.items():
        for offset in range(0, len(piece), 4096):
            place = (start + offset) % length
            data[place : place + 4096] = piece[offset : offset + 4096]
    return bytes(data)


def dirty(log: bytes, **fields: object) -> bytes:
    """An image whose log is to be replayed."""
    both = (header(7, log_guid=LOG_GUID), header(6))
    return make_image(log=log, headers=both, **fields)  # type: ignore[arg-type]
