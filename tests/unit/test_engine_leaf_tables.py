"""New leaf tables within a commit: what fails is told as a StorageError, and done the next time."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk, open_layer
from support.faulty import Fault, Operation
from support.patience import processor_time


@pytest.mark.parametrize("format", ["qed", "qcow2"])
def test_no_room_for_a_leaf_table(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"image.{format}"
    make_image(path, ImageSpec(64 * MIB, 64 * KIB, format=format))
    fault = Fault(Operation.EXTEND, 1 << 60, errno.EFBIG)
    with open_disk([path], source=fault.source) as disk:
        disk.write(MIB, b"new" * 1000)
        fault.number, fault.lasting = fault.seen + 1, True
        with pytest.raises(StorageError, match="table") as caught:
            disk.flush()
        assert caught.value.kind is ErrorKind.NO_SPACE
        assert fault.met
        fault.heal()
        disk.flush()
    with open_disk([path], writable=False) as disk:
        assert disk.read(MIB, 3000) == b"new" * 1000


def test_only_an_empty_image_becomes_the_active_layer(tmp_path: Path) -> None:
    """However large it is: where there is no leaf table, nothing is looked at."""
    size = 16 << 40
    paths = [tmp_path / f"{name}.qcow2" for name in ("old", "used", "new")]
    for path in paths:
        make_image(path, ImageSpec(size, format="qcow2"))
    with open_disk(paths[1:2]) as disk:
        disk.write(size - 4096, b"used")
    with open_disk(paths[:1]) as disk:
        used = open_layer(paths[1], writable=True)
        with pytest.raises(StorageError, match="must be empty"):
            disk.push(used)
        used.sources[0].close()
        with processor_time(10):
            disk.push(open_layer(paths[2], writable=True))
        disk.write(size - 4096, b"above")
        assert disk.read(size - 4096, 5) == b"above"
