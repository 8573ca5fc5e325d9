"""VMDK, the format of VMware: sparse, flat, split, compressed. See docs/formats/vmdk.md."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.blockmap import Files, Format, Layer, RepairStep
from drivebay.formats.vmdk.create import CREATABLE, VmdkOptions, create
from drivebay.formats.vmdk.edit import edit
from drivebay.formats.vmdk.layer import open_layer, probe
from drivebay.model import Finding


def _check(files: Files, layer: Layer) -> Iterator[Finding]:
    from drivebay.formats.vmdk.check import check  # brings numpy, which opening does without

    return check(files, layer)


def _repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    from drivebay.formats.vmdk.repair import repair  # as above

    return repair(files, layer)


FORMAT = Format(
    name="vmdk",
    extensions=("vmdk",),
    probe=probe,
    open=open_layer,
    create=create,
    check=_check,
    repair=_repair,
    edit=edit,
    variants=CREATABLE,
    options=VmdkOptions,
)
