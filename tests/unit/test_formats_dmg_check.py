"""Checking DMG: the checksums of the trailer, and what no chunk covers."""

from __future__ import annotations

from drivebay.formats import dmg
from drivebay.formats.dmg.tables import ChunkType
from drivebay.model import Severity
from support.dmg_images import SECTOR, Piece, Table, cut, make_dmg
from support.memory_files import MemoryFiles

CONTENT = bytes(range(256)) * 512
TABLES = [Table(0, cut(ChunkType.ZLIB, CONTENT, 1 << 16), checksum=0x12345678)]
SECTORS = len(CONTENT) // SECTOR


def findings(data: bytes) -> dict[str, tuple[Severity, int | None]]:
    files = MemoryFiles(data, "image.dmg")
    layer = dmg.FORMAT.open(files)
    assert dmg.FORMAT.check is not None
    return {finding.code: (finding.severity, finding.offset) for finding in dmg.FORMAT.check(files, layer)}


def test_a_sound_image_has_none() -> None:
    assert findings(make_dmg(TABLES, SECTORS, lead=b"lead")) == {}


def test_a_changed_byte_of_the_data_fork_is_found() -> None:
    data = bytearray(make_dmg(TABLES, SECTORS))
    data[5] ^= 1
    assert findings(bytes(data)) == {"data-checksum": (Severity.ERROR, len(data) - 512 + 80)}


def test_a_changed_checksum_of_a_table_is_found() -> None:
    data = make_dmg(TABLES, SECTORS, master_checksum=b"abcd")
    assert findings(data) == {"master-checksum": (Severity.ERROR, len(data) - 512 + 352)}


def test_checksums_of_other_types_are_not_compared() -> None:
    data = make_dmg(TABLES, SECTORS, master_type=0, data_type=9, master_checksum=b"", data_checksum=b"")
    assert findings(data) == {}


def test_tables_without_a_checksum_do_not_count() -> None:
    without = Table(SECTORS, [Piece(ChunkType.ZERO, 0, 1)], fields={"_type": 0, "_checksum": b"xxxx"})
    crc = make_dmg(TABLES, SECTORS)[-512:][360:364]
    assert findings(make_dmg([*TABLES, without], SECTORS + 1, master_checksum=crc)) == {}


def test_sectors_that_no_chunk_covers_are_noted() -> None:
    assert findings(make_dmg(TABLES, SECTORS + 3)) == {"uncovered": (Severity.NOTE, None)}


def test_chunks_behind_the_data_fork_are_noted() -> None:
    found = findings(make_dmg(TABLES, SECTORS, data_length=1, data_type=0))
    assert found == {"outside-fork": (Severity.WARNING, 0)}
