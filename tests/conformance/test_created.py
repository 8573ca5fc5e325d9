"""Every kind of image as its format makes it: sound, empty, and as it was asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from drivebay.formats import FORMATS, probe
from drivebay.model import Severity
from support.images import ImageSpec, findings, format_of, images_of, main_file, make_image, read_layer
from support.interpreter import read_layers
from support.variants import SIZES, Kind, all_kinds, child_kinds, writable_kinds

STANDALONE = [kind for kind in all_kinds() if kind not in child_kinds() or kind in writable_kinds()]


def make(folder: Path, kind: Kind, name: str = "image", parent: Path | None = None) -> Path:
    path = folder / f"{name}.{kind.spec(kind.size).extension}"
    make_image(path, kind.spec(kind.size), parent)
    return path


@pytest.mark.parametrize("kind", STANDALONE, ids=str)
def test_a_new_image_is_sound_and_empty(kind: Kind, tmp_path: Path) -> None:
    path = make(tmp_path, kind)
    layer = read_layer(path)
    assert layer.facts.format == kind.format
    assert kind.size <= layer.facts.size < kind.size + (2 << 20)
    assert kind.variant in (None, layer.facts.variant) or kind.format == "raw"
    assert (layer.plan is None) == bool(layer.refusal)
    assert [found for found in findings(path) if found.severity is not Severity.NOTE] == []
    images = images_of([path])
    for offset in range(0, layer.facts.size - 512, max(layer.facts.size // 64 // 512 * 512, 512)):
        assert read_layers(images, offset, 512) == bytes(512)
    assert read_layers(images, layer.facts.size - 512, 512) == bytes(512)


@pytest.mark.parametrize("kind", STANDALONE, ids=str)
def test_its_content_tells_what_it_is(kind: Kind, tmp_path: Path) -> None:
    data = main_file(make(tmp_path, kind)).read_bytes()
    name = "disk.raw" if kind.format == "raw" else f"disk.{kind.spec(kind.size).extension}"
    assert probe(data[:4096], data[-512:], name).name == kind.format


@pytest.mark.parametrize("kind", child_kinds(), ids=str)
def test_a_child_shows_its_parent(kind: Kind, tmp_path: Path) -> None:
    base = next(each for each in writable_kinds() if each.format == kind.format)
    parent = make(tmp_path, dataclasses.replace(base, block=kind.block, options=kind.options), "parent")
    facts = read_layer(parent).facts
    path = tmp_path / f"child.{kind.spec(kind.size).extension}"
    make_image(path, kind.spec(facts.size), parent)
    child = read_layer(path).facts
    assert child.differencing
    assert child.size == facts.size
    assert child.parent_uuid == facts.uuid or child.parent_names
    assert child.parent_modification_uuid in (facts.modification_uuid, child.parent_uuid)
    assert child.parent_content_id == facts.content_id
    assert [found for found in findings(path) if found.severity is not Severity.NOTE] == []


def test_every_number_of_the_table_is_an_option() -> None:
    known = {known.name: {field.name for field in dataclasses.fields(known.options)} for known in FORMATS}
    for name, sets in SIZES.items():
        for options in sets if name in known else ():
            assert options.keys() <= known[name]


def test_names_tell_the_format() -> None:
    for known in FORMATS:
        assert format_of(f"x.{ImageSpec(1, format=known.name).extension}") is known
