"""Files that could be a parent, and how they are told apart."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

from drivebay.chain.gate import Gate
from drivebay.chain.image import DESCRIPTOR, Access, FileIdentity, OpenedImage
from drivebay.formats import raw
from drivebay.model import NULL_UUID, ImageFacts

# Recorded by a child while its parent changes in a way that the child need not mind: it is new and holds
# nothing yet, or its blocks move into the parent. Any state of the parent will do until
# `drivebay.chain.link.renew_link` records which. The content ID is the last below VMDK's "no parent".
UNSETTLED = UUID("9d1f3c52-6a0e-4b47-8f0b-1f6de2a7c3b4")
UNSETTLED_CONTENT = 0xFFFFFFFE


class Key(NamedTuple):
    """What a child may know its parent by: the parent's UUID, or that of its last modification."""

    kind: Literal["uuid", "modification"]
    value: UUID


@dataclass(frozen=True, slots=True)
class Wanted:
    """A child at ``path`` that looks for its parent."""

    path: str
    facts: ImageFacts

    @property
    def key(self) -> Key | None:
        """What it knows its parent by; ``None`` where only names do."""
        if self.facts.parent_uuid != NULL_UUID:
            return Key("uuid", self.facts.parent_uuid)
        if self.facts.parent_names and self.facts.parent_modification_uuid not in (NULL_UUID, UNSETTLED):
            return Key("modification", self.facts.parent_modification_uuid)
        return None

    @property
    def parent(self) -> str:
        """The parent as a message names it."""
        names = [repr(name[:200]) for name in self.facts.parent_names[:3]]
        uuids = [f"{{{self.key.value}}}"] if self.key else []
        return " or ".join(uuids + names)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that could be a parent; ``format_name`` where its content did not decide."""

    path: str
    facts: ImageFacts
    identity: tuple[FileIdentity, str]
    format_name: str | None = None

    @property
    def part(self) -> str:
        """Which of the images in the file it is."""
        return self.identity[1]

    @property
    def named_by_file(self) -> bool:
        """Whether it holds no identity of its own, so that its name has to do."""
        return self.facts.uuid in (NULL_UUID, raw.identity(self.path))

    @property
    def keys(self) -> tuple[Key, ...]:
        """What a child may know it by."""
        return (
            Key("uuid", identity_uuid(self.facts, self.path)),
            Key("modification", self.facts.modification_uuid),
        )

    def fits(self, child: Wanted) -> bool:
        """Whether it may be the parent, going by the UUIDs that both have."""
        wanted = child.facts.parent_uuid
        return wanted == NULL_UUID or self.named_by_file or wanted == self.facts.uuid


def identity_uuid(facts: ImageFacts, path: str) -> UUID:
    """The UUID by which a child names the image at ``path``: made from the name where it has none."""
    if facts.uuid != NULL_UUID:
        return facts.uuid
    bundle = os.path.basename(path) == DESCRIPTOR
    name = os.path.basename(os.path.dirname(os.path.realpath(path)) if bundle else path)
    return uuid5(raw.NAMESPACE, f"{facts.format}:{name.encode('utf-8', 'backslashreplace').decode()}")


def read_candidate(path: str, gate: Gate, *, format_name: str | None = None, part: str = "") -> Candidate:
    """What the file at ``path``, which must be no link, says about itself. Raises StorageError."""
    access = Access(gate, lock=False, follow=False)
    with OpenedImage(path, access, format_name=format_name, part=part) as image:
        return Candidate(image.files.path, image.layer.facts, image.identity, format_name)
