"""The N-th operation fails, N = 1, 2, 3 ... until the run passes untouched: no damage, the right error."""

from __future__ import annotations

import errno
import itertools
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from drivebay.errors import ErrorKind
from drivebay.model import Severity
from support.chains import build_chain
from support.crash_cases import BLOCKS, CrashCase, crash_cases
from support.disks import KIB, MIB, ImageSpec, copy_image, findings, open_disk
from support.faulty import Fault, Operation
from support.images import make_writable
from support.shadow import ShadowDisk
from support.stubborn import Request, StubbornGuest

BLOCK = 512 * KIB
SIZE = BLOCKS * BLOCK
VDI_CASES = (
    CrashCase("vdi-fixed", (ImageSpec(SIZE, BLOCK, "fixed"),), BLOCK),
    CrashCase("vdi-differencing", (ImageSpec(SIZE - 3 * KIB, MIB), ImageSpec(SIZE, BLOCK)), BLOCK),
)
CASES = [*(case for case in crash_cases() if not case.has_small_blocks), *VDI_CASES]


def script_of(block: int) -> tuple[Request, ...]:
    """New blocks, in place, dropped and zeroed ones, with flushes between."""
    return (
        Request("write", block - 4096, 8192, 1),
        Request("read"),
        Request("write", 3 * block, block, 2),
        Request("flush"),
        Request("write", 3 * block + 512, 1024, 3),
        Request("zero", 2 * block + 512, 4096),
        Request("discard", block, block),
        Request("write", 4 * block, 4096, 4, fua=True),
        Request("write", 5 * block, 2048, 5),
        Request("zero", 3 * block, block, unmap=False),
        Request("flush"),
        Request("write", block + 4096, 4096, 6),
        Request("read"),
        Request("zero", 0, 2 * block),
        Request("read"),
        Request("write", 512, 512, 7),
        Request("discard", 4 * block - 2048, block),
        Request("flush"),
        Request("write", 4096, 512, 8, fua=True),
    )


FAULTS = (
    (Operation.READ, errno.EIO, ErrorKind.IO),
    (Operation.WRITE, errno.EIO, ErrorKind.IO),
    (Operation.WRITE, errno.ENOSPC, ErrorKind.NO_SPACE),
    (Operation.EXTEND, errno.ENOSPC, ErrorKind.NO_SPACE),
    (Operation.EXTEND, errno.EFBIG, ErrorKind.NO_SPACE),
    (Operation.SHORTEN, errno.EIO, ErrorKind.IO),
    (Operation.ZERO, errno.EIO, ErrorKind.IO),
    (Operation.ZERO, errno.ENOSPC, ErrorKind.NO_SPACE),
    (Operation.SYNC, errno.EIO, ErrorKind.IO),
)
MOST = 400


class Template(NamedTuple):
    """A chain whose top has a hole: a unit that was used once and is free."""

    paths: list[Path]
    content: bytes
    block: int


@pytest.fixture(params=CASES, ids=str)
def template(request: pytest.FixtureRequest, tmp_path: Path) -> Template:
    """Each case's chain."""
    folder = tmp_path / "template"
    folder.mkdir()
    case = request.param
    paths, content = build_chain(folder, case.specs, seed=4)
    with open_disk(paths) as disk:
        shadow = ShadowDisk(disk, content)
        shadow.write(0, b"used" * (len(content) // 4))
        shadow.flush()
        shadow.discard(0, case.block)
    return Template(paths, bytes(content), case.block)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(("operation", "code", "kind"), FAULTS)
def test_no_fault_does_damage(
    template: Template,
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


def _run(template: Template, folder: Path, fault: Fault, kind: ErrorKind) -> None:
    name = f"{fault.operation.value} {fault.number}"
    paths = [copy_image(path, folder) for path in template.paths]
    parents = [path.read_bytes() for path in paths[1:]]
    disk = open_disk(paths, source=fault.source)
    guest = StubbornGuest(disk, template.content)
    try:
        guest.run(script_of(template.block), fault.heal)
        poisoned = fault.operation is Operation.SYNC and fault.met
        assert {error.kind for error in guest.errors} <= {kind}, name
        assert poisoned or len(guest.errors) <= fault.met, f"{name}: what was tried again failed again"
        fault.heal()
        assert guest.live_fault() is None, name
    finally:
        _close(guest)
    assert [path.read_bytes() for path in paths[1:]] == parents
    _check_reopened(paths, guest, name, template.block)


def _close(guest: StubbornGuest) -> None:
    guest.send(Request("flush"))
    try:
        guest.disk.close()
    except Exception:
        assert guest.errors, "closing failed, but nothing else did"


def _check_reopened(paths: list[Path], guest: StubbornGuest, name: str, block: int) -> None:
    assert not [f for f in findings(paths[0]) if f.severity is Severity.ERROR], name
    make_writable(paths[0])
    with open_disk(paths) as disk:
        assert guest.durable_fault(disk) is None, name
        shadow = ShadowDisk(disk, bytearray(disk.read(0, disk.size)))
        shadow.write(block // 2, b"healed" * (2 * block // 6))
        shadow.flush()
        shadow.verify()
