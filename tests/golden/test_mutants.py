"""Damaged images: each ends in a layer or in a StorageError, and the engine reads what it means."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from drivebay.blockmap import Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import probe
from drivebay.model import Severity
from support.corpus import Mutant, all_images, mutants, needs_corpus, read_image
from support.disks import open_disk
from support.images import findings
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.patience import processor_time

pytestmark = needs_corpus

SECONDS = 2.0  # seconds for one image of a few MiB
CASES = {"vdi-mutants": "base.vdi", "vhd-mutants": "base.vhd", "vmdk-mutants": "base.vmdk"}
# VirtualBox knows VMDK headers of versions 1 and 3 only; 2 exists (QEMU reads it, too) and is laid out alike.
LENIENT = {("vmdk-mutants", "version 2")}
ALL = [(case, mutant) for case, image in CASES.items() for mutant in mutants(case, image)]
each_mutant = pytest.mark.parametrize(
    ("case", "mutant"), ALL, ids=[f"{case}-{mutant.name}" for case, mutant in ALL]
)


def damaged(case: str, mutant: Mutant) -> bytes:
    (base,) = (image for image in all_images() if image.case == case)
    data = mutant.apply(read_image(base))
    assert hashlib.sha256(data).hexdigest() == mutant.sha256
    return data


def opened(data: bytes, name: str) -> Layer | StorageError:
    try:
        return probe(data[:4096], data[-512:], name).open(MemoryFiles(data, name))
    except StorageError as error:
        return error


@each_mutant
def test_a_layer_or_an_error_that_tells_the_place(case: str, mutant: Mutant) -> None:
    with processor_time(SECONDS):
        result = opened(damaged(case, mutant), CASES[case])
    if isinstance(result, StorageError):
        assert result.kind in (ErrorKind.CORRUPT, ErrorKind.UNSUPPORTED, ErrorKind.NOT_FOUND)
        assert result.path
        assert ";" in result.message, "it says what to do next"


@each_mutant
def test_what_virtualbox_refuses_is_refused_or_found(case: str, mutant: Mutant, tmp_path: Path) -> None:
    path = tmp_path / CASES[case]
    path.write_bytes(damaged(case, mutant))
    try:
        found = findings(path)
    except StorageError:
        return
    refused = mutant.refused and (case, mutant.name) not in LENIENT
    assert not refused or [each for each in found if each.severity is not Severity.NOTE]


@each_mutant
def test_the_engine_reads_what_the_description_means(case: str, mutant: Mutant, tmp_path: Path) -> None:
    data = damaged(case, mutant)
    layer = opened(data, CASES[case])
    if isinstance(layer, StorageError) or layer.facts.size > 64 << 20:
        return
    path = tmp_path / CASES[case]
    path.write_bytes(data)
    with open_disk([path], writable=False) as disk:
        for offset in range(0, disk.size, 64 << 10):
            length = min(64 << 10, disk.size - offset)
            try:
                expected = read_layers([(layer, data)], offset, length)
            except CorruptPointerError:
                with pytest.raises(StorageError):
                    disk.read(offset, length)
            else:
                assert disk.read(offset, length) == expected


@each_mutant
def test_what_is_read_is_what_virtualbox_reads(case: str, mutant: Mutant) -> None:
    data = damaged(case, mutant)
    layer = opened(data, CASES[case])
    if isinstance(layer, StorageError) or mutant.refused or not mutant.content_sha256:
        return
    try:
        content = read_layers([(layer, data)], 0, layer.facts.size)
    except CorruptPointerError:
        return
    assert hashlib.sha256(content).hexdigest() == mutant.content_sha256
