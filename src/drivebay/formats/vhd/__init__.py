"""VHD, of Virtual PC, Hyper-V and Azure: fixed, dynamic and differencing. See docs/formats/vhd.md."""

from __future__ import annotations

from drivebay.blockmap import Format, on_demand
from drivebay.formats.vhd.create import VhdOptions, create
from drivebay.formats.vhd.edit import edit
from drivebay.formats.vhd.footer import probe
from drivebay.formats.vhd.layer import open_layer

FORMAT = Format(
    name="vhd",
    extensions=("vhd", "vpc", "avhd"),
    probe=probe,
    open=open_layer,
    create=create,
    check=on_demand("drivebay.formats.vhd.check", "check"),
    repair=on_demand("drivebay.formats.vhd.repair", "repair"),
    edit=edit,
    variants=("dynamic", "fixed", "differencing"),
    options=VhdOptions,
)
