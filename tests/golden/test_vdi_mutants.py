"""Damaged VDI images with VirtualBox's verdict on each: drivebay is at least as strict."""

from __future__ import annotations

import hashlib

import pytest

from drivebay.blockmap import Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import probe
from drivebay.formats.vdi import FORMAT
from drivebay.model import Severity
from support.corpus import Mutant, images, mutants, needs_corpus, read_image
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles

pytestmark = needs_corpus
MUTANTS = mutants("vdi-mutants", "base.vdi")
# Refused although VirtualBox reads them: a map whose entries straddle sectors can be torn by a crash,
# and a header can't reach over the map that follows it.
STRICTER = {"offBlocks 472", "offBlocks 513", "cbHeader 4294967295"}
each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


def damaged(mutant: Mutant) -> bytes:
    (base,) = (image for image in images("vdi") if image.id == "vdi-mutants/base")
    return mutant.apply(read_image(base))


def opened(data: bytes) -> Layer:
    return probe(data[:4096], data[-512:], "mutant.vdi").open(MemoryFiles(data, "mutant.vdi"))


def refusal_of(data: bytes) -> StorageError | None:
    try:
        opened(data)
    except StorageError as error:
        return error
    return None


def errors_of(data: bytes) -> list[str]:
    assert FORMAT.check is not None
    findings = FORMAT.check(MemoryFiles(data), opened(data))
    return [found.code for found in findings if found.severity is Severity.ERROR]


@each_mutant
def test_the_recorded_damage_is_done(mutant: Mutant) -> None:
    assert hashlib.sha256(damaged(mutant)).hexdigest() == mutant.sha256


@each_mutant
def test_what_virtualbox_refuses_is_refused_or_found(mutant: Mutant) -> None:
    data = damaged(mutant)
    error = refusal_of(data)
    if error is None:
        assert errors_of(data) or not mutant.refused
    else:
        assert mutant.refused or mutant.name in STRICTER
        assert error.kind in (ErrorKind.CORRUPT, ErrorKind.UNSUPPORTED)
        assert error.path == "mutant.vdi"
        assert error.offset is not None


@each_mutant
def test_what_is_read_is_what_virtualbox_reads(mutant: Mutant) -> None:
    data = damaged(mutant)
    try:
        layer = opened(data)
        content = read_layers([(layer, data)], 0, layer.facts.size)
    except (StorageError, CorruptPointerError):
        assert mutant.refused or mutant.name in STRICTER
        return
    assert hashlib.sha256(content).hexdigest() == mutant.content_sha256
