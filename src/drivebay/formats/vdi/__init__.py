"""VDI, the format of VirtualBox: dynamic, fixed and differencing. See docs/formats/vdi.md."""

from __future__ import annotations

from drivebay.blockmap import Format, on_demand
from drivebay.formats.vdi.create import create
from drivebay.formats.vdi.edit import edit
from drivebay.formats.vdi.header import probe
from drivebay.formats.vdi.layer import open_layer

FORMAT = Format(
    name="vdi",
    extensions=("vdi",),
    probe=probe,
    open=open_layer,
    create=create,
    check=on_demand("drivebay.formats.vdi.check", "check"),
    repair=on_demand("drivebay.formats.vdi.repair", "repair"),
    edit=edit,
    variants=("dynamic", "fixed", "differencing"),
)
