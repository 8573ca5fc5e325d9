"""VHD, of Virtual PC, Hyper-V and Azure: fixed, dynamic and differencing. See docs/formats/vhd.md."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Format, Layer, RepairStep
from drivebay.formats.vhd.create import VhdOptions, create
from drivebay.formats.vhd.edit import edit
from drivebay.formats.vhd.footer import probe
from drivebay.formats.vhd.layer import open_layer
from drivebay.model import Finding


def _check(files: Files, layer: Layer) -> Iterator[Finding]:
    from drivebay.formats.vhd.check import check  # brings numpy, which opening does without

    return check(files, layer)


def _repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    from drivebay.formats.vhd.repair import repair  # as above

    return repair(files, layer)


FORMAT = Format(
    name="vhd",
    extensions=("vhd", "vpc", "avhd"),
    probe=probe,
    open=open_layer,
    create=create,
    check=_check,
    repair=_repair,
    edit=edit,
    variants=("dynamic", "fixed", "differencing"),
    options=VhdOptions,
)
