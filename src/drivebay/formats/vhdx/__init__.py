"""VHDX, Hyper-V's format: dynamic, fixed and differencing, with a log. See docs/formats/vhdx.md."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Format, Layer, RepairStep
from drivebay.formats.vhdx.create import VARIANTS, VhdxOptions, create
from drivebay.formats.vhdx.edit import edit
from drivebay.formats.vhdx.header import probe
from drivebay.formats.vhdx.layer import open_layer
from drivebay.model import Finding


def _check(files: Files, layer: Layer) -> Iterator[Finding]:
    from drivebay.formats.vhdx.check import check  # brings numpy, which opening does without

    return check(files, layer)


def _repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    from drivebay.formats.vhdx.repair import repair

    return repair(files, layer)


FORMAT = Format(
    name="vhdx",
    extensions=("vhdx", "avhdx"),
    probe=probe,
    open=open_layer,
    create=create,
    check=_check,
    repair=_repair,
    edit=edit,
    variants=VARIANTS,
    options=VhdxOptions,
)
