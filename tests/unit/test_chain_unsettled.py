"""A child made while its parent was being written: any state of the parent will do, until it is told."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from drivebay.chain import create_image, open_chain, open_image
from drivebay.chain.link import renew_link
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError

SIZE = 4 << 20


@pytest.mark.parametrize("kind", ["vdi", "vhdx"])
def test_a_child_of_a_parent_that_goes_on_is_not_stale(tmp_path: Path, kind: str) -> None:
    base, child = tmp_path / f"base.{kind}", tmp_path / f"child.{kind}"
    create_image(base, size=SIZE, uuid=uuid4())
    with Disk(open_chain(base, writable=True).layers, writable=True) as disk:
        disk.write(0, b"before")
        with pytest.raises(StorageError):
            create_image(child, parent=base)
        create_image(child, parent=base, parent_in_use=True)
        disk.write(0, b"after!")
        disk.flush()
    with Disk(open_chain(child).layers) as disk:
        assert disk.read(0, 6) == b"after!"
    with open_image(str(child), writable=True) as image:
        renew_link(image, str(base))
    open_chain(child).close()
    with Disk(open_chain(base, writable=True).layers, writable=True) as disk:
        disk.write(0, b"behind")
    with pytest.raises(StorageError) as caught:
        open_chain(child)
    assert caught.value.kind in (ErrorKind.STATE, ErrorKind.NOT_FOUND)
