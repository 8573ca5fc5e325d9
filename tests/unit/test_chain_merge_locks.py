"""Images that are merged while they are served: who may have them open meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import drivebay
from drivebay.chain.locks import LockMode, lock_file
from drivebay.chain.merge import ImageName, kept_for_merging
from drivebay.errors import ErrorKind, StorageError


@contextmanager
def _opened(path: Path, mode: LockMode, *, merging: bool = False) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR)
    try:
        lock_file(fd, str(path), mode, merging=merging)
        yield
    finally:
        os.close(fd)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.vdi"
    drivebay.create(path, size=1 << 20)
    return path


@pytest.mark.parametrize("mode", [LockMode.READ, LockMode.WRITE, LockMode.SHARED, LockMode.MERGE])
def test_only_those_who_serve_an_image_have_it_open_while_it_is_merged(image: Path, mode: LockMode) -> None:
    name = ImageName(str(image))
    with _opened(image, mode), pytest.raises(StorageError) as before, kept_for_merging([name]):
        pass
    with (
        _opened(image, LockMode.SERVE),
        kept_for_merging([name]),
        pytest.raises(StorageError) as after,
        _opened(image, mode),
    ):
        pass
    assert before.value.kind is after.value.kind is ErrorKind.IN_USE


def test_an_image_is_served_anew_only_by_the_order_of_whoever_merges_it(image: Path) -> None:
    with kept_for_merging([ImageName(str(image))]):
        with pytest.raises(StorageError, match="in use"), _opened(image, LockMode.SERVE):
            pass
        with _opened(image, LockMode.SERVE, merging=True):
            pass
    with _opened(image, LockMode.SERVE), drivebay.open(image):
        pass
