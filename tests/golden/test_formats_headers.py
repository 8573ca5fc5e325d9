"""Every VDI image of the corpus: what its header says, and that nothing is wrong in it."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest

from drivebay.formats import probe
from drivebay.model import NULL_UUID, Geometry, Severity
from support.corpus import CorpusImage, chain_of, images, needs_corpus, read_image
from support.interpreter import Image, read_layers
from support.memory_files import MemoryFiles

pytestmark = needs_corpus
each_image = pytest.mark.parametrize("image", images("vdi"), ids=lambda image: image.id)


def opened(image: CorpusImage) -> Image:
    data = read_image(image)
    files = MemoryFiles(data, image.files[0])
    return probe(data[:4096], data[-512:], image.files[0]).open(files), data


def by_id(wanted: str) -> CorpusImage:
    return next(image for image in images("vdi") if image.id == wanted)


@each_image
def test_the_facts_are_virtualbox_s(image: CorpusImage) -> None:
    facts = opened(image)[0].facts
    assert facts.format == "vdi"
    assert facts.size == image.virtual_size
    assert (facts.uuid, facts.modification_uuid) == (image.uuid, image.modification_uuid)
    assert facts.parent_uuid == image.parent_uuid
    if image.parent_modification_uuid is not None:
        assert facts.parent_modification_uuid == image.parent_modification_uuid
    assert facts.differencing is (facts.parent_uuid != NULL_UUID)
    if image.variant is not None:
        assert facts.variant == image.variant


@each_image
def test_check_has_nothing_to_complain_about(image: CorpusImage) -> None:
    layer, data = opened(image)
    check = probe(data[:4096], data[-512:], image.files[0]).check
    assert check is not None
    findings = list(check(MemoryFiles(data, image.files[0]), layer))
    assert [found for found in findings if found.severity is not Severity.NOTE] == []


@each_image
def test_the_content_is_what_virtualbox_read(image: CorpusImage) -> None:
    chain = [opened(member) for member in chain_of(image)]
    if image.content_sha256:
        content = read_layers(chain, 0, image.virtual_size)
        assert hashlib.sha256(content).hexdigest() == image.content_sha256
    for stretch in image.entry.get("data_ranges", []):
        content = read_layers(chain, stretch["offset"], stretch["length"])
        assert hashlib.sha256(content).hexdigest() == stretch["sha256"]


def test_a_logical_geometry_that_was_set() -> None:
    assert opened(by_id("vdi-meta/disk"))[0].facts.lchs == Geometry(8, 16, 63)


@pytest.mark.parametrize("wanted", ["vdi-resize/after", "vdi-resize-relocate/after", "vdi-resize-chain/base"])
def test_the_geometry_that_virtualbox_spoils_when_it_resizes(wanted: str) -> None:
    assert opened(by_id(wanted))[0].facts.lchs == Geometry(0, 0, 0)


def test_virtualbox_leaves_a_stale_link_behind_a_merge() -> None:
    child, base = by_id("vdi-merge-down/m3"), by_id("vdi-merge-down/base")
    facts, parent = opened(child)[0].facts, opened(base)[0].facts
    assert facts.parent_uuid == parent.uuid
    assert facts.parent_modification_uuid not in (parent.modification_uuid, UUID(int=0))
