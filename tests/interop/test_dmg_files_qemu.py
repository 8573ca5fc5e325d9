"""DMG files read by QEMU and here: equal, byte by byte. QEMU reads zlib everywhere, the rest by modules."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from drivebay.formats import dmg
from drivebay.formats.dmg.tables import ChunkType
from support.dmg_images import SECTOR, Piece, Table, cut, make_dmg, packed
from support.interpreter import read_layers
from support.memory_files import MemoryFiles

CHUNK = 256 << 10


def a_disk(length: int) -> bytes:
    """Text, noise and zeros."""
    noise = random.Random(length).randbytes(length // 3)
    text = b"".join(b"a line of text, number %d\n" % number for number in range(length // 30))
    return (text[: length // 3] + noise + bytes(length))[:length]


def read_by_qemu(path: Path) -> bytes:
    out = path.with_suffix(".raw")
    command = ["qemu-img", "convert", "-f", "dmg", "-O", "raw", str(path), str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return out.read_bytes()


def read_here(data: bytes) -> bytes:
    layer = dmg.FORMAT.open(MemoryFiles(data, "image.dmg"))
    return read_layers([(layer, data)], 0, layer.facts.size)


@pytest.mark.parametrize("kind", [ChunkType.ZLIB, ChunkType.RAW])
def test_one_kind_of_chunk(tmp_path: Path, kind: ChunkType) -> None:
    content = a_disk(3 * CHUNK + 512)
    data = make_dmg([Table(0, cut(kind, content, CHUNK))], len(content) // SECTOR, lead=b"odd")
    path = tmp_path / "disk.dmg"
    path.write_bytes(data)
    assert read_by_qemu(path) == read_here(data) == content


def test_partitions_with_zeros_between_packed_and_stored_chunks(tmp_path: Path) -> None:
    content = a_disk(64 << 10)
    terminator = Piece(ChunkType.TERMINATOR, 0, 0)
    first = [
        packed(ChunkType.ZLIB, 0, content[: 32 << 10]),
        Piece(ChunkType.ZERO, 64, 100),
        packed(ChunkType.RAW, 164, content[:3072]),
        Piece(ChunkType.IGNORE, 170, 30),
        terminator,
    ]
    second = [Piece(ChunkType.COMMENT, 0, 0), packed(ChunkType.ZLIB, 0, content[-4096:]), terminator]
    data = make_dmg([Table(0, first), Table(200, second)], 208)
    path = tmp_path / "disk.dmg"
    path.write_bytes(data)
    expected = content[: 32 << 10] + bytes(100 * 512) + content[:3072] + bytes(30 * 512) + content[-4096:]
    assert read_by_qemu(path) == read_here(data) == expected
