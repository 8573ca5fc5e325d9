"""QED, QEMU's enhanced disk: two-level tables of clusters, and a backing file. See docs/formats/qed.md."""

from __future__ import annotations

from drivebay.blockmap import Format, on_demand
from drivebay.formats.qed.create import VARIANTS, QedOptions, create
from drivebay.formats.qed.edit import edit
from drivebay.formats.qed.header import probe
from drivebay.formats.qed.layer import open_layer

FORMAT = Format(
    name="qed",
    extensions=("qed",),
    probe=probe,
    open=open_layer,
    create=create,
    check=on_demand("drivebay.formats.qed.check", "check"),
    repair=on_demand("drivebay.formats.qed.repair", "repair"),
    edit=edit,
    variants=VARIANTS,
    options=QedOptions,
)
