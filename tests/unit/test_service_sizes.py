"""Sizes as people write them."""

from __future__ import annotations

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1048576", 1 << 20),
        (1048576, 1 << 20),
        ("512B", 512),
        ("512 KiB", 512 << 10),
        ("10G", 10 << 30),
        ("10GB", 10 << 30),
        ("10 gib", 10 << 30),
        (" 1.5 TiB ", 3 << 39),
        ("0.5k", 512),
        ("2P", 2 << 50),
        ("7.9E", 9108079886394091520),
        ("1.3M", 1363456),  # 1363148.8 bytes, rounded up to whole sectors
    ],
)
def test_sizes_are_read(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ten",
        "10X",
        "G",
        "-1",
        "-10G",
        "1e9",
        "0x10",
        "1,5G",
        "1.5",
        "0",
        "0G",
        "8E",
        "9" * 30,
        "9" * 40,
        "1 0G",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(StorageError) as caught:
        parse_size(text)
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.message.startswith(repr(text))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (10 << 30, "10 GiB"),
        (3 << 39, "1.5 TiB"),
        ((1 << 20) + 1, "1 MiB"),
        (1 << 63, "8 EiB"),
    ],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("size", [512, 4096, 10 << 30, 3 << 39])
def test_what_is_shown_can_be_read(size: int) -> None:
    assert parse_size(format_size(size)) == size
