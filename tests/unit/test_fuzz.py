"""Fuzzing: the same number does the same damage, and what must never happen is noticed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from fuzz.attempt import CANARY, ViolationError, attempt
from fuzz.campaign import Campaign
from fuzz.mutation import damage, metadata_of
from fuzz.seeds import Seed, guest_bytes
from fuzz.worker import Job, build

import drivebay
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError

WORDS = (b"word",)


@pytest.fixture
def seed(tmp_path: Path) -> Seed:
    folder = tmp_path / "seed"
    folder.mkdir()
    drivebay.create(folder / "top.vdi", size="3M")
    with drivebay.open(folder / "top.vdi", writable=True) as disk:
        disk.write(5000, guest_bytes(9000))
    return Seed("a-vdi", "vdi", folder, "top.vdi")


def test_the_same_chance_does_the_same_damage(seed: Seed) -> None:
    image = seed.folder / seed.top
    sound = image.read_bytes()
    results = []
    for _ in range(2):
        image.write_bytes(sound)
        done = damage(image, metadata_of(sound), WORDS, random.Random(7))
        results.append((done, image.read_bytes()))
    assert results[0] == results[1]
    assert results[0][1] != sound


def test_damage_goes_to_metadata() -> None:
    data = bytes(8192) + b"header".ljust(64, b"\0") + guest_bytes(8192)[: 8192 - 64] + bytes(65536)
    hot = metadata_of(data)
    assert 8192 in hot
    assert {0, len(data) - 64} <= set(hot)
    assert not [place for place in hot if 8256 + 64 <= place < 16384 - 64]


def test_an_attempt_is_the_same_in_every_process(seed: Seed, tmp_path: Path) -> None:
    images = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for _ in range(2):
        build(Job(seed, 3), scratch)
        images.append((scratch / "image" / seed.top).read_bytes())
    assert images[0] == images[1]
    assert images[0] != (seed.folder / seed.top).read_bytes()


def test_a_sound_image_is_read(seed: Seed) -> None:
    for number in range(5):
        assert attempt(seed.folder / seed.top, random.Random(number)) == "read"


def test_the_error_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "top.vdi").write_bytes(bytes(4096))
    assert attempt(tmp_path / "top.vdi", random.Random(1)) == "corrupt"


def _shows(data: bytes) -> Any:
    def read_into(_disk: Disk, _offset: int, view: memoryview) -> None:
        view[:] = data.ljust(len(view), b"\0")[: len(view)]

    return read_into


@pytest.mark.parametrize(
    ("read_into", "message"),
    [
        (_shows(bytes(700) + CANARY), "bytes of another file"),
        (_shows(b"bytes from nowhere"), "in no file"),
        (_shows(guest_bytes(9000)[120:632] * 6144), "not what they should be"),  # one sector all over
        (lambda _disk, _offset, _view: None, "not filled"),
    ],
)
def test_bytes_that_are_not_the_images_are_noticed(
    seed: Seed, monkeypatch: pytest.MonkeyPatch, read_into: Any, message: str
) -> None:
    monkeypatch.setattr(Disk, "read_into", read_into)
    with pytest.raises(ViolationError, match=message):
        attempt(seed.folder / seed.top, random.Random(1))


def test_a_lost_write_is_noticed(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "write", lambda _disk, _place, _data: None)
    writes = next(number for number in range(50) if random.Random(number).random() < 0.1)
    image = seed.folder / seed.top
    monkeypatch.setattr("fuzz.attempt._read", lambda _image, _chance: None)
    with pytest.raises(ViolationError, match="reads back as something else"):
        attempt(image, random.Random(writes))


def test_an_error_without_words_is_noticed(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    def info(_image: Path) -> None:
        raise StorageError(ErrorKind.CORRUPT, "")

    monkeypatch.setattr(drivebay, "info", info)
    with pytest.raises(ViolationError, match="without a proper message"):
        attempt(seed.folder / seed.top, random.Random(1))


def test_a_campaign_counts_its_attempts(seed: Seed, tmp_path: Path) -> None:
    scratch, keep = tmp_path / "scratch", tmp_path / "keep"
    scratch.mkdir()
    keep.mkdir()
    campaign = Campaign([seed], scratch, keep, start=1)
    campaign.run(seconds=2)
    assert campaign.formats["vdi"] == campaign.outcomes.total() > 0
    assert campaign.findings == list(keep.iterdir()) == []
