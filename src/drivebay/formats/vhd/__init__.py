"""VHD, of Virtual PC, Hyper-V and Azure: fixed, dynamic and differencing. See docs/formats/vhd.md."""

from __future__ import annotations

from drivebay.blockmap import Format
from drivebay.formats.vhd.footer import probe
from drivebay.formats.vhd.layer import open_layer

FORMAT = Format(
    name="vhd",
    extensions=("vhd", "vpc", "avhd"),
    probe=probe,
    open=open_layer,
)
