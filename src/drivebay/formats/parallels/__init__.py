"""Parallels: expanding images, and bundles of them with snapshots. See docs/formats/parallels.md."""

from __future__ import annotations

from drivebay.blockmap import Files, Format, Layer, Match, on_demand
from drivebay.formats.parallels.bundle import open_bundle
from drivebay.formats.parallels.create import VARIANTS, ParallelsOptions, create
from drivebay.formats.parallels.descriptor import ROOT
from drivebay.formats.parallels.edit import edit
from drivebay.formats.parallels.header import MAGIC_1, MAGIC_2
from drivebay.formats.parallels.layer import open_expanding


def _is_expanding(head: bytes) -> bool:
    return head[:16] in (MAGIC_1, MAGIC_2)


def _probe(head: bytes, _tail: bytes) -> Match:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    described = text.startswith(b"<") and b"<" + ROOT.encode() in text
    return Match.YES if _is_expanding(head) or described else Match.NO


def _open(files: Files) -> Layer:
    return open_expanding(files) if _is_expanding(files.read(0, 16)) else open_bundle(files)


FORMAT = Format(
    name="parallels",
    extensions=("hdd", "hds", "parallels"),
    probe=_probe,
    open=_open,
    create=create,
    check=on_demand("drivebay.formats.parallels.check", "check"),
    repair=on_demand("drivebay.formats.parallels.repair", "repair"),
    edit=edit,
    snapshot=on_demand("drivebay.formats.parallels.snapshot", "snapshot"),
    variants=VARIANTS,
    options=ParallelsOptions,
)
