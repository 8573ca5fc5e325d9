"""DMG, Apple's disk images (UDIF): compressed, read-only. See docs/formats/dmg.md."""

from __future__ import annotations

from drivebay.blockmap import Format
from drivebay.formats.dmg.check import check
from drivebay.formats.dmg.layer import open_layer
from drivebay.formats.dmg.trailer import probe

FORMAT = Format(name="dmg", extensions=("dmg",), probe=probe, open=open_layer, check=check)
