"""QCOW2, the format of QEMU, versions 2 and 3. See docs/formats/qcow2.md."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Format, Layer, RepairStep
from drivebay.formats.qcow2.create import create
from drivebay.formats.qcow2.edit import edit
from drivebay.formats.qcow2.header import probe
from drivebay.formats.qcow2.layer import open_layer
from drivebay.formats.qcow2.options import VARIANTS, Qcow2Options
from drivebay.model import Finding


def _check(files: Files, layer: Layer) -> Iterator[Finding]:
    from drivebay.formats.qcow2.check import check  # brings numpy, which opening does without

    return check(files, layer)


def _repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    from drivebay.formats.qcow2.repair import repair  # as above

    return repair(files, layer)


FORMAT = Format(
    name="qcow2",
    extensions=("qcow2", "qcow2c"),
    probe=probe,
    open=open_layer,
    create=create,
    check=_check,
    repair=_repair,
    edit=edit,
    variants=VARIANTS,
    options=Qcow2Options,
)
