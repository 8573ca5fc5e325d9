"""VHDX, Hyper-V's format: dynamic, fixed and differencing, with a log. See docs/formats/vhdx.md."""

from __future__ import annotations

from drivebay.blockmap import Format, on_demand
from drivebay.formats.vhdx.create import VARIANTS, VhdxOptions, create
from drivebay.formats.vhdx.edit import edit
from drivebay.formats.vhdx.header import probe
from drivebay.formats.vhdx.layer import open_layer

FORMAT = Format(
    name="vhdx",
    extensions=("vhdx", "avhdx"),
    probe=probe,
    open=open_layer,
    create=create,
    check=on_demand("drivebay.formats.vhdx.check", "check"),
    repair=on_demand("drivebay.formats.vhdx.repair", "repair"),
    edit=edit,
    variants=VARIANTS,
    options=VhdxOptions,
)
