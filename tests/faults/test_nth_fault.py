"""The N-th operation fails, N = 1, 2, 3 ... until the run passes untouched: no damage, the right error."""

from __future__ import annotations

import errno
import itertools
import shutil
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind
from drivebay.model import Severity
from support.chains import build_chain
from support.disks import KIB, MIB, ImageSpec, copy_sparse, findings, open_disk
from support.faulty import Fault, Operation
from support.shadow import ShadowDisk
from support.stubborn import Request, StubbornGuest

BLOCK = 512 * KIB
SIZE = 6 * BLOCK
CHAINS = {
    "dynamic": (ImageSpec(SIZE, BLOCK),),
    "fixed": (ImageSpec(SIZE, BLOCK, "fixed"),),
    "differencing": (ImageSpec(SIZE - 3 * KIB, MIB), ImageSpec(SIZE, BLOCK)),
}
SCRIPT = (
    Request("write", BLOCK - 4096, 8192, 1),
    Request("read"),
    Request("write", 3 * BLOCK, BLOCK, 2),
    Request("flush"),
    Request("write", 3 * BLOCK + 512, 1024, 3),
    Request("zero", 2 * BLOCK + 512, 4096),
    Request("discard", BLOCK, BLOCK),
    Request("write", 4 * BLOCK, 4096, 4, fua=True),
    Request("write", 5 * BLOCK, 2048, 5),
    Request("zero", 3 * BLOCK, BLOCK, unmap=False),
    Request("flush"),
    Request("write", BLOCK + 4096, 4096, 6),
    Request("read"),
    Request("zero", 0, 2 * BLOCK),
    Request("read"),
    Request("write", 512, 512, 7),
    Request("discard", 4 * BLOCK - 2048, BLOCK),
    Request("flush"),
    Request("write", 4096, 512, 8, fua=True),
)
FAULTS = (
    (Operation.READ, errno.EIO, ErrorKind.IO),
    (Operation.WRITE, errno.EIO, ErrorKind.IO),
    (Operation.WRITE, errno.ENOSPC, ErrorKind.NO_SPACE),
    (Operation.EXTEND, errno.ENOSPC, ErrorKind.NO_SPACE),
    (Operation.EXTEND, errno.EFBIG, ErrorKind.NO_SPACE),
    (Operation.ZERO, errno.EIO, ErrorKind.IO),
    (Operation.ZERO, errno.ENOSPC, ErrorKind.NO_SPACE),
    (Operation.SYNC, errno.EIO, ErrorKind.IO),
)
MOST = 400


@pytest.fixture(params=CHAINS)
def template(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[Path], bytes]:
    """A chain whose top has a hole: a unit that was used once and is free."""
    folder = tmp_path / "template"
    folder.mkdir()
    paths, content = build_chain(folder, CHAINS[request.param], seed=4)
    with open_disk(paths) as disk:
        shadow = ShadowDisk(disk, content)
        shadow.write(0, b"used" * (SIZE // 4))
        shadow.flush()
        shadow.discard(0, BLOCK)
    return paths, bytes(content)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(("operation", "code", "kind"), FAULTS)
def test_no_fault_does_damage(
    template: tuple[list[Path], bytes],
    tmp_path: Path,
    operation: Operation,
    code: int,
    kind: ErrorKind,
    lasting: bool,
) -> None:
    for number in itertools.count(1):
        fault = Fault(operation, number, code, lasting)
        folder = tmp_path / "run"
        folder.mkdir()
        _run(template, folder, fault, kind)
        shutil.rmtree(folder)
        if not fault.met:
            return
        assert number < MOST


def _run(template: tuple[list[Path], bytes], folder: Path, fault: Fault, kind: ErrorKind) -> None:
    name = f"{fault.operation.value} {fault.number}"
    paths = [copy_sparse(path, folder) for path in template[0]]
    parents = [path.read_bytes() for path in paths[1:]]
    disk = open_disk(paths, source=fault.source)
    guest = StubbornGuest(disk, template[1])
    try:
        guest.run(SCRIPT, fault.heal)
        poisoned = fault.operation is Operation.SYNC and fault.met
        assert {error.kind for error in guest.errors} <= {kind}, name
        assert poisoned or len(guest.errors) <= fault.met, f"{name}: what was tried again failed again"
        fault.heal()
        assert guest.live_fault() is None, name
    finally:
        _close(guest)
    assert [path.read_bytes() for path in paths[1:]] == parents
    _check_reopened(paths, guest, name)


def _close(guest: StubbornGuest) -> None:
    guest.send(Request("flush"))
    try:
        guest.disk.close()
    except Exception:
        assert guest.errors, "closing failed, but nothing else did"


def _check_reopened(paths: list[Path], guest: StubbornGuest, name: str) -> None:
    assert not [f for f in findings(paths[0]) if f.severity is Severity.ERROR], name
    with open_disk(paths) as disk:
        assert guest.durable_fault(disk) is None, name
        shadow = ShadowDisk(disk, bytearray(disk.read(0, disk.size)))
        shadow.write(BLOCK // 2, b"healed" * 200_000)
        shadow.flush()
        shadow.verify()
