"""VDI, the format of VirtualBox: dynamic, fixed and differencing. See docs/formats/vdi.md."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Format, Layer, RepairStep
from drivebay.formats.vdi.create import create
from drivebay.formats.vdi.edit import edit
from drivebay.formats.vdi.header import probe
from drivebay.formats.vdi.layer import open_layer
from drivebay.model import Finding


def _check(files: Files, layer: Layer) -> Iterator[Finding]:
    from drivebay.formats.vdi.check import check  # brings numpy, which opening does without

    return check(files, layer)


def _repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    from drivebay.formats.vdi.repair import repair

    return repair(files, layer)


FORMAT = Format(
    name="vdi",
    extensions=("vdi",),
    probe=probe,
    open=open_layer,
    create=create,
    check=_check,
    repair=_repair,
    edit=edit,
    variants=("dynamic", "fixed", "differencing"),
)
