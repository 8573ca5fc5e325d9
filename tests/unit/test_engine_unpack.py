"""Packed blocks: every codec gives exactly what was packed, or an error; never more memory than agreed."""

from __future__ import annotations

import lzma
import os
import random
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivebay.blockmap import Codec, PackedEntry, PackedRun
from drivebay.engine.adc import unpack_adc
from drivebay.engine.source import FileSource
from drivebay.engine.unpack import Unpacker
from drivebay.errors import ErrorKind, StorageError
from support.packing import pack

LENGTH = 1 << 16
COMPRESSING = [codec for codec in Codec if codec is not Codec.STORED]
#: Codecs whose streams carry a checksum or a length, so that a cut or a longer one is always noticed.
WITH_END = [codec for codec in COMPRESSING if codec is not Codec.ADC]


def content(length: int = LENGTH, seed: int = 1) -> bytes:
    """Text, noise and zeros, so that every codec meets all kinds of its instructions."""
    noise = random.Random(seed).randbytes(length // 4)
    text = b"".join(b"LBA %010d\n" % number for number in range(length // 30))
    return (noise + text + bytes(length // 4) + noise[::-1] + noise + text + text)[:length].ljust(
        length, b"x"
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[FileSource]:
    path = tmp_path / "packed.img"
    path.touch()
    source = FileSource(os.open(path, os.O_RDWR), str(path), writable=True)
    yield source
    source.close()


def unpacked(place: FileSource, codec: Codec, data: bytes, length: int = LENGTH, offset: int = 7) -> bytes:
    place.write(data, offset)
    run = PackedRun(0, length, offset, len(data), codec)
    return Unpacker().block(place, run, run.offset, length)


def refusal(place: FileSource, codec: Codec, data: bytes, length: int = LENGTH) -> StorageError:
    with pytest.raises(StorageError) as caught:
        unpacked(place, codec, data, length)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert (caught.value.path, caught.value.offset) == (place.path, 7)
    return caught.value


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("length", [512, 4096, LENGTH, 1 << 20])
def test_what_was_packed_comes_back(place: FileSource, codec: Codec, length: int) -> None:
    data = content(length)
    assert unpacked(place, codec, pack(codec, data), length) == data


@pytest.mark.parametrize("codec", Codec)
def test_bytes_behind_the_stream_are_ignored(place: FileSource, codec: Codec) -> None:
    data = content()
    assert unpacked(place, codec, pack(codec, data) + os.urandom(600)) == data


@pytest.mark.parametrize("codec", WITH_END)
def test_a_longer_stream_is_refused(place: FileSource, codec: Codec) -> None:
    error = refusal(place, codec, pack(codec, content(LENGTH + 512)))
    assert "more bytes" in error.message


@pytest.mark.parametrize("codec", Codec)
def test_a_shorter_stream_is_refused(place: FileSource, codec: Codec) -> None:
    refusal(place, codec, pack(codec, content(LENGTH - 512)))


@pytest.mark.parametrize("codec", Codec)
def test_a_cut_stream_is_refused(place: FileSource, codec: Codec) -> None:
    packed = pack(codec, content())
    for cut in (0, 1, 5, len(packed) // 2, len(packed) - 1):
        refusal(place, codec, packed[:cut])


@pytest.mark.parametrize("codec", COMPRESSING)
def test_damaged_streams_give_an_answer_or_the_error(place: FileSource, codec: Codec) -> None:
    chance = random.Random(codec.value)
    packed = pack(codec, content(8192))
    for _ in range(200):
        mutant = bytearray(packed)
        for _ in range(chance.randint(1, 4)):
            mutant[chance.randrange(len(mutant))] = chance.randrange(256)
        try:
            assert len(unpacked(place, codec, bytes(mutant), 8192)) == 8192
        except StorageError as error:
            assert error.kind is ErrorKind.CORRUPT  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize(
    "codec", [Codec.DEFLATE, Codec.ZLIB, Codec.ZSTD, Codec.BZIP2, Codec.LZMA, Codec.LZFSE]
)
def test_a_bomb_takes_no_more_memory_than_the_block(place: FileSource, codec: Codec) -> None:
    bomb = pack(codec, bytes(32 << 20))
    tracemalloc.start()
    try:
        refusal(place, codec, bomb)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # xz has a dictionary of 8 MiB
    finally:
        tracemalloc.stop()


def test_an_lzfse_block_that_lies_about_its_length_is_refused(place: FileSource) -> None:
    packed = bytearray(pack(Codec.LZFSE, bytes(1 << 20)))
    assert packed[:4] == b"bvx2"
    packed[4:8] = struct.pack("<I", LENGTH)
    assert "another length" in refusal(place, Codec.LZFSE, bytes(packed)).message


def test_lzfse_blocks_reach_back_into_earlier_ones(place: FileSource) -> None:
    data = random.Random(3).randbytes(200_000) * 5
    packed = pack(Codec.LZFSE, data)
    assert packed.count(b"bvx2") > 1
    assert unpacked(place, Codec.LZFSE, packed, len(data)) == data


def test_lzfse_stored_and_endless_streams(place: FileSource) -> None:
    stored = b"bvx-" + struct.pack("<I", 512) + bytes(range(256)) * 2
    assert unpacked(place, Codec.LZFSE, stored + b"bvx$", 512) == bytes(range(256)) * 2
    refusal(place, Codec.LZFSE, stored, 512)
    assert "blocks" in refusal(place, Codec.LZFSE, (b"bvx-" + bytes(4)) * 4000).message
    assert "no known type" in refusal(place, Codec.LZFSE, b"bvx9" * 20).message


def test_lzma_alone_is_read_too_and_a_huge_dictionary_is_not(place: FileSource) -> None:
    data = content()
    alone = lzma.compress(data, format=lzma.FORMAT_ALONE)
    assert unpacked(place, Codec.LZMA, alone) == data
    greedy = alone[:1] + struct.pack("<I", 1 << 30) + alone[5:]
    refusal(place, Codec.LZMA, greedy)


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (b"\x82abc", b"abc"),  # 3 bytes as they are
        (b"\x80a\x18\x00", b"a" * 10),  # 9 from a distance of 1
        (b"\x82abc\x00\x02", b"abcabc"),  # 3 from a distance of 3
        (b"\x82abc\x42\x00\x02", b"abcabcabc"),  # 6 from a distance of 3, with 16 bits
        (b"\xff" + bytes(128) + b"\x80x" + b"\x00\x80" + b"\x03\x81", None),  # reaches 898 back
    ],
)
def test_adc_by_hand(packed: bytes, expected: bytes | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="before its beginning"):
            unpack_adc(packed, 200)
    else:
        assert unpack_adc(packed, len(expected)) == expected


def test_adc_stops_at_an_instruction_that_overshoots() -> None:
    with pytest.raises(ValueError, match="more bytes"):
        unpack_adc(b"\x82abc", 2)


def test_a_packed_entry_is_read_behind_its_header_and_within_its_size(place: FileSource) -> None:
    data = content()
    packed = zlib.compress(data)
    place.write(b"a header: 12" + packed, 512)
    entry = PackedEntry(Codec.ZLIB, mask=0xFFFF, longest=2 * LENGTH, header=12)
    assert Unpacker().block(place, entry, 512, LENGTH) == data
    assert Unpacker().block(place, entry, 512, LENGTH, size=12 + len(packed)) == data
    with pytest.raises(StorageError, match="too early"):
        Unpacker().block(place, entry, 512, LENGTH, size=12 + len(packed) - 1)


@pytest.mark.parametrize("codec", [Codec.DEFLATE, Codec.ZLIB, Codec.ZSTD])
@pytest.mark.parametrize("packed_length", [LENGTH, 5120, 6000])
def test_a_last_block_is_packed_whole_or_in_part(place: FileSource, codec: Codec, packed_length: int) -> None:
    place.write(pack(codec, content()[:packed_length]), 0)
    entry = PackedEntry(codec, mask=-1, longest=2 * LENGTH)
    assert Unpacker().block(place, entry, 0, 5120, most=LENGTH) == content()[:5120]
    with pytest.raises(StorageError, match="instead of"):
        Unpacker().block(place, entry, 0, packed_length + 1, most=2 * LENGTH)
    with pytest.raises(StorageError, match="more bytes"):
        Unpacker().block(place, entry, 0, 4096, most=5000)


def test_a_block_behind_the_file_is_corrupt(place: FileSource) -> None:
    run = PackedRun(0, 512, 1 << 40, 100, Codec.ZLIB)
    with pytest.raises(StorageError, match="behind the file's end") as caught:
        Unpacker().block(place, run, run.offset, 512)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_an_absurd_size_costs_no_memory(place: FileSource) -> None:
    place.extend(1 << 40)
    run = PackedRun(0, 512, 0, 1 << 40, Codec.ZLIB)
    with pytest.raises(StorageError):
        Unpacker().block(place, run, 0, 512)


class _CountingSource(FileSource):
    reads = 0

    def read_into(self, view: memoryview, offset: int) -> None:
        self.reads += 1
        super().read_into(view, offset)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[_CountingSource]:
    path = tmp_path / "blocks.img"
    path.touch()
    source = _CountingSource(os.open(path, os.O_RDWR), str(path), writable=True)
    for number in range(4):
        source.write(pack(Codec.ZLIB, content(seed=number)), number * LENGTH * 2)
    yield source
    source.close()


def read_block(unpacker: Unpacker, source: FileSource, number: int) -> None:
    entry = PackedEntry(Codec.ZLIB, mask=-1, longest=LENGTH)
    assert unpacker.block(source, entry, number * LENGTH * 2, LENGTH) == content(seed=number)


def test_the_cache_holds_the_blocks_used_last(counting: _CountingSource) -> None:
    unpacker = Unpacker(capacity=2 * LENGTH + 100)
    for number in (0, 1, 0, 2, 0, 0):  # 2 drives out 1
        read_block(unpacker, counting, number)
    assert counting.reads == 3
    read_block(unpacker, counting, 1)
    assert counting.reads == 4
    read_block(unpacker, counting, 2)
    assert counting.reads == 5  # 1 had driven out 2, not 0


def test_a_block_larger_than_the_cache_is_read_all_the_same(counting: _CountingSource) -> None:
    unpacker = Unpacker(capacity=LENGTH - 1)
    read_block(unpacker, counting, 3)
    read_block(unpacker, counting, 3)
    assert counting.reads == 2


def test_many_threads_share_one_cache(counting: _CountingSource) -> None:
    unpacker = Unpacker(capacity=2 * LENGTH)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(50):
                read_block(unpacker, counting, chance.randrange(4))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_threads_do_not_wait_for_each_others_unpacking(counting: _CountingSource) -> None:
    unpacker = Unpacker()
    started, go_on = threading.Event(), threading.Event()

    class Slow(FileSource):
        def read_into(self, view: memoryview, offset: int) -> None:
            started.set()
            assert go_on.wait(10)
            super().read_into(view, offset)

    slow = Slow(os.dup(counting.fd), counting.path, writable=False)
    thread = threading.Thread(target=read_block, args=(unpacker, slow, 0))
    thread.start()
    assert started.wait(10)
    read_block(unpacker, counting, 0)
    go_on.set()
    thread.join()
    slow.close()
