"""QCOW2, the format of QEMU, versions 2 and 3. See docs/formats/qcow2.md."""

from __future__ import annotations

from drivebay.blockmap import Format, on_demand
from drivebay.formats.qcow2.create import create
from drivebay.formats.qcow2.edit import edit
from drivebay.formats.qcow2.header import probe
from drivebay.formats.qcow2.layer import open_layer
from drivebay.formats.qcow2.options import VARIANTS, Qcow2Options

FORMAT = Format(
    name="qcow2",
    extensions=("qcow2", "qcow2c"),
    probe=probe,
    open=open_layer,
    create=create,
    check=on_demand("drivebay.formats.qcow2.check", "check"),
    repair=on_demand("drivebay.formats.qcow2.repair", "repair"),
    edit=edit,
    variants=VARIANTS,
    options=Qcow2Options,
)
