"""What opening a QCOW2 image leaves unread: all tables, and the reference counts."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Layer
from drivebay.formats.qcow2.counts import StoredCounts, compare
from drivebay.formats.qcow2.header import INCOMPATIBLE_PLACE, Incompatible
from drivebay.formats.qcow2.image import Image, read_image
from drivebay.formats.qcow2.places import find_misplaced
from drivebay.formats.qcow2.references import References
from drivebay.model import Finding, Severity


def check(files: Files, _layer: Layer) -> Iterator[Finding]:
    """Findings about an image whose header was accepted; raises StorageError if it can't be read."""
    image = read_image(files)
    yield from _marks(image)
    references, _ = examine(files, image)
    yield from references.faults.findings()


def examine(files: Files, image: Image) -> tuple[References, list[int]]:
    """A walk with all its faults, and the numbers of the blocks of counts that are wrong."""
    references = References(files, image)
    stored = StoredCounts(files, image.header, references.faults)
    references.walk()
    stored.use_themselves(references)
    references.finish()
    if image.header.has_data_file:
        find_misplaced(references)
    wrong = list(compare(stored, references))
    for flag in references.wrong_flags():
        references.faults.add("owned-wrongly", flag.offset)
    return references, wrong


def _marks(image: Image) -> Iterator[Finding]:
    features = image.header.incompatible
    if features & Incompatible.DIRTY:
        message = "the image was not closed: its reference counts may be behind"
        yield Finding(Severity.WARNING, "dirty", message, INCOMPATIBLE_PLACE)
    if features & Incompatible.CORRUPT:
        message = "the image is marked as corrupt: some program found a fault in it while it was in use"
        yield Finding(Severity.ERROR, "corrupt", message, INCOMPATIBLE_PLACE)
