"""Damaged VHD images: refused, read as VirtualBox reads them, or read where VirtualBox gives up."""

from __future__ import annotations

import hashlib

import pytest

from drivebay.blockmap import Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import probe, vhd
from drivebay.model import Severity
from support.corpus import Mutant, images, mutants, needs_corpus, read_image
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by

pytestmark = needs_corpus
# Read although VirtualBox refuses them: the footer's copy holds all that the footer does, and old
# Virtual PCs wrote footers of 511 bytes. `check` warns of each.
MILDER = {"cookie of the footer at the end gone", "511-byte footer", "one byte appended"}
REFUSED = {"data offset all ones", "disk type 2 (fixed) on dynamic", "disk type 6"}
each_mutant = pytest.mark.parametrize(
    "mutant", mutants("vhd-mutants", "base.vhd"), ids=lambda mutant: mutant.name
)


def base() -> bytes:
    return read_image(next(image for image in images("vhd") if image.id == "vhd-mutants/base"))


def damaged(mutant: Mutant) -> MemoryFiles:
    return MemoryFiles(mutant.apply(base()), "mutant.vhd")


def opened(files: MemoryFiles) -> Layer:
    return probe(bytes(files.data[:4096]), bytes(files.data[-512:]), "mutant.vhd").open(files)


def content_of(files: MemoryFiles) -> str:
    layer = opened(files)
    return hashlib.sha256(read_layers([(layer, files.data)], 0, layer.facts.size)).hexdigest()


@each_mutant
def test_the_recorded_damage_is_done(mutant: Mutant) -> None:
    assert hashlib.sha256(damaged(mutant).data).hexdigest() == mutant.sha256


@each_mutant
def test_what_is_refused_is_refused_by_virtualbox_too(mutant: Mutant) -> None:
    if mutant.name not in REFUSED:
        opened(damaged(mutant))
        assert mutant.refused == (mutant.name in MILDER)
        return
    assert mutant.refused
    with pytest.raises(StorageError) as caught:
        opened(damaged(mutant))
    assert caught.value.kind in (ErrorKind.CORRUPT, ErrorKind.UNSUPPORTED)
    assert (caught.value.path, caught.value.offset is None) == ("mutant.vhd", False)


@each_mutant
def test_what_is_read_is_what_virtualbox_reads(mutant: Mutant) -> None:
    if mutant.name in REFUSED:
        return
    expected = mutant.content_sha256 or content_of(MemoryFiles(base()))
    assert content_of(damaged(mutant)) == expected


@each_mutant
def test_what_virtualbox_refuses_is_warned_of_and_mended(mutant: Mutant) -> None:
    if mutant.name not in MILDER:
        return
    files = damaged(mutant)
    assert vhd.FORMAT.check is not None
    assert vhd.FORMAT.repair is not None
    assert any(found.severity is Severity.WARNING for found in vhd.FORMAT.check(files, opened(files)))
    steps = list(vhd.FORMAT.repair(files, opened(files)))
    changes = [change for step in steps for change in step.changes]
    mended = MemoryFiles(files_made_by(changes, {"": files.data})[""])
    assert {found.severity for found in vhd.FORMAT.check(mended, opened(mended))} <= {Severity.NOTE}
