"""Bundles with snapshots, as other programs read them: the newest state and what was kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pyphdi
import pytest
from dissect.hypervisor.disk.hdd import HDD

import drivebay

# The library leaves files open, and Python says so in whatever test runs when it notices.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

MIB = 1 << 20
Record = Callable[[str, object], None]
Bundle = tuple[Path, list[tuple[str, bytes]]]


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    """A bundle, and its states from the newest down: name ("" for the newest) and content.

    Each file's blocks are the disk's first ones, in order: dissect mixes up others.
    """
    path = tmp_path / "disk.hdd"
    drivebay.create(path, size=6 * MIB, variant="bundle", options={"version": request.param})
    states: list[tuple[str, bytes]] = []
    for start, length in ((0, 4 * MIB), (700, 5000), (MIB - 100, 2 * MIB)):
        if states:
            kept = drivebay.create(path, parent=path).facts.parent_part
            states[0] = (kept, states[0][1])
        with drivebay.open(path, writable=True) as disk:
            disk.write(start, bytes([len(states) + 1]) * length)
            states.insert(0, ("", disk.read(0, disk.size)))
    return path, states


def test_dissect_reads_all_states(bundle: Bundle, record_property: Record) -> None:
    path, states = bundle
    for name, content in states:
        stream = HDD(path).open(UUID(name) if name else None)
        assert stream.read(len(content)) == content
    record_property("interop", ("parallels-bundle (snapshots)", "written here", "dissect", "equal"))


@pytest.mark.parametrize("bundle", [1], indirect=True, ids=["v1"])  # it refuses the newer layout
def test_libphdi_reads_the_newest_state(bundle: Bundle, record_property: Record) -> None:
    path, states = bundle
    handle = pyphdi.handle()
    handle.open(str(path / "DiskDescriptor.xml"))
    handle.open_extent_data_files()
    assert handle.read_buffer(handle.get_media_size()) == states[0][1]
    handle.close()
    record_property("interop", ("parallels-bundle (snapshots)", "written here", "libphdi", "equal (v1)"))
