"""QED, QEMU's enhanced disk: two-level tables of clusters, and a backing file. See docs/formats/qed.md."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Format, Layer, RepairStep
from drivebay.formats.qed.create import VARIANTS, QedOptions, create
from drivebay.formats.qed.edit import edit
from drivebay.formats.qed.header import probe
from drivebay.formats.qed.layer import open_layer
from drivebay.model import Finding


def _check(files: Files, layer: Layer) -> Iterator[Finding]:
    from drivebay.formats.qed.check import check  # brings numpy, which opening does without

    return check(files, layer)


def _repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    from drivebay.formats.qed.repair import repair

    return repair(files, layer)


FORMAT = Format(
    name="qed",
    extensions=("qed",),
    probe=probe,
    open=open_layer,
    create=create,
    check=_check,
    repair=_repair,
    edit=edit,
    variants=VARIANTS,
    options=QedOptions,
)
