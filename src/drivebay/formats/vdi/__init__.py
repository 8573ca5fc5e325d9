"""VDI, the format of VirtualBox: dynamic, fixed and differencing. See docs/formats/vdi.md."""

from __future__ import annotations

from drivebay.blockmap import Format
from drivebay.formats.vdi.check import check
from drivebay.formats.vdi.create import create
from drivebay.formats.vdi.header import probe
from drivebay.formats.vdi.layer import open_layer

FORMAT = Format(
    name="vdi",
    extensions=("vdi",),
    probe=probe,
    open=open_layer,
    create=create,
    check=check,
    variants=("dynamic", "fixed", "differencing"),
)
