"""The matrix of the suite: every shape of chain, block sizes, cache modes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivebay.model import CacheMode
from support.chains import EACH_FORMAT, SHAPES, Case, Stage, build_chain
from support.disks import KIB, ImageSpec, copy_image, direct_folder
from support.shadow import ShadowDisk

_REPOSITORY = Path(__file__).resolve().parents[2]


EACH_SHAPE = [*(Case(shape, 512 * KIB, CacheMode.WRITEBACK) for shape in SHAPES), *EACH_FORMAT]


_PIECE = 64 * KIB


class Stages:
    """Makes each chain once, and copies it for every test; the top is empty.

    Contents are kept in files with holes: all of them together are two gigabytes, nearly all zeros.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[ImageSpec, ...], tuple[list[Path], Path]] = {}

    def make(self, case: Case, folder: Path) -> Stage:
        key = case.specs
        if key not in self._made:
            template = self._folder / str(len(self._made))
            template.mkdir()
            images, shown = build_chain(template, key, seed=1)
            self._made[key] = images, _keep(shown, template / "content")
        paths, content = self._made[key]
        return Stage(case, [copy_image(path, folder) for path in paths], bytearray(content.read_bytes()))


def _keep(content: bytearray, path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(len(content))
        for at in range(0, len(content), _PIECE):
            piece = content[at : at + _PIECE]
            if piece.count(0) < len(piece):
                file.seek(at)
                file.write(piece)
    return path


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """The chains that were made."""
    return Stages(tmp_path_factory.mktemp("chains"))


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where the case's chain goes: for unbuffered I/O, a folder that has it."""
    if request.getfixturevalue("case").cache is not CacheMode.DIRECT:
        yield tmp_path
        return
    parent = direct_folder((tmp_path, Path("/var/tmp"), _REPOSITORY))
    with tempfile.TemporaryDirectory(dir=parent, prefix=".conformance-") as name:
        yield Path(name)


@pytest.fixture(params=EACH_SHAPE, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """Each shape, once. A test over the whole matrix says so itself."""
    chosen = request.param
    return chosen if isinstance(chosen, Case) else Case(chosen, 512 * KIB, CacheMode.WRITEBACK)


@pytest.fixture
def stage(stages: Stages, case: Case, folder: Path) -> Stage:
    """The case's chain; the top is empty."""
    return stages.make(case, folder)


@pytest.fixture
def shadow(stage: Stage) -> Iterator[ShadowDisk]:
    """The stage's disk, opened for writing."""
    with stage.open() as disk:
        yield ShadowDisk(disk, stage.content)
