"""VMDK, the format of VMware: sparse, flat, split, compressed. See docs/formats/vmdk.md."""

from __future__ import annotations

from drivebay.blockmap import Format, on_demand
from drivebay.formats.vmdk.create import CREATABLE, VmdkOptions, create
from drivebay.formats.vmdk.edit import edit
from drivebay.formats.vmdk.layer import open_layer, probe

FORMAT = Format(
    name="vmdk",
    extensions=("vmdk",),
    probe=probe,
    open=open_layer,
    create=create,
    check=on_demand("drivebay.formats.vmdk.check", "check"),
    repair=on_demand("drivebay.formats.vmdk.repair", "repair"),
    edit=edit,
    variants=CREATABLE,
    options=VmdkOptions,
)
