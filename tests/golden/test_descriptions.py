"""Images that VirtualBox and QEMU wrote: what our descriptions of them mean, by the slow interpreter."""

from __future__ import annotations

import hashlib

import pytest

from drivebay.formats import probe
from support.corpus import CorpusImage, all_images, chain_of, expected_sha256, needs_corpus, read_files
from support.interpreter import Image, read_layers
from support.memory_files import MemoryFiles

pytestmark = needs_corpus

SMALL = 64 << 20  # bytes that the interpreter reads in little time


def _described(image: CorpusImage) -> Image:
    name, *others = files = read_files(image)
    kind = probe(files[name][:4096], files[name][-512:], name)
    layer = kind.open(MemoryFiles(files[name], name, {other: files[other] for other in others}))
    return layer, files[name], *(files[source] for source in layer.sources)


@pytest.mark.parametrize(
    "image",
    [image for image in all_images() if image.content_sha256 and image.virtual_size <= SMALL],
    ids=lambda image: image.id,
)
def test_the_description_means_what_virtualbox_exported(image: CorpusImage) -> None:
    chain = [_described(member) for member in chain_of(image)]
    content = read_layers(chain, 0, image.virtual_size)
    assert chain[0][0].facts.size == image.virtual_size
    assert hashlib.sha256(content).hexdigest() == expected_sha256(image)


@pytest.mark.parametrize(
    "image", [image for image in all_images() if image.entry.get("data_ranges")], ids=lambda image: image.id
)
def test_known_ranges_read_right(image: CorpusImage) -> None:
    chain = [_described(member) for member in chain_of(image)]
    for known in [] if image.misread else image.entry["data_ranges"]:
        data = read_layers(chain, known["offset"], known["length"])
        assert hashlib.sha256(data).hexdigest() == known["sha256"]


@pytest.mark.parametrize("image", all_images(), ids=lambda image: image.id)
def test_the_facts_are_virtualbox_s(image: CorpusImage) -> None:
    facts = _described(image)[0].facts
    assert facts.size == (image.virtual_size or facts.size)
    # VirtualBox makes one up for formats that have none, and for VHDX, too; where cloning failed, the
    # manifest has the one that VirtualBox had in mind, not the file's.
    if facts.uuid.int and image.format != "vhdx" and not image.entry.get("clonemedium_error"):
        assert facts.uuid == image.uuid
