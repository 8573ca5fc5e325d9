"""New leaf tables within a commit: what fails is told as a StorageError, and done the next time."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk
from support.faulty import Fault, Operation


@pytest.mark.parametrize("format", ["qed", "qcow2"])
def test_no_room_for_a_leaf_table(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"image.{format}"
    make_image(path, ImageSpec(64 * MIB, 64 * KIB, format=format))
    fault = Fault(Operation.EXTEND, 1 << 60, errno.EFBIG)
    with open_disk([path], source=fault.source) as disk:
        disk.write(MIB, b"new" * 1000)
        fault.number = fault.seen + 1
        with pytest.raises(StorageError, match="table") as caught:
            disk.flush()
        assert caught.value.kind is ErrorKind.NO_SPACE
        assert fault.met == 1
        disk.flush()
    with open_disk([path], writable=False) as disk:
        assert disk.read(MIB, 3000) == b"new" * 1000
