"""QCOW2, the format of QEMU, versions 2 and 3. See docs/formats/qcow2.md."""

from __future__ import annotations

from drivebay.blockmap import Format
from drivebay.formats.qcow2.header import probe
from drivebay.formats.qcow2.layer import open_layer

FORMAT = Format(
    name="qcow2",
    extensions=("qcow2", "qcow2c"),
    probe=probe,
    open=open_layer,
)
