"""What ``qemu-img check`` says about images that a power cut left behind."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from drivebay.model import SECTOR
from support.disks import copy_image, format_of, read_layer

# Our names of formats that it can check, and its own.
_NAMES = {
    "vdi": "vdi",
    "vmdk": "vmdk",
    "vhdx": "vhdx",
    "qcow2": "qcow2",
    "qed": "qed",
    "parallels": "parallels",
}
_LEAKS = 3  # its exit code for clusters that nobody uses
_TIMEOUT = 60


class QemuCheck:
    """Holds files of the top image of a chain against it. The parents lie beside them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._format = _NAMES.get(format_of(paths[0]).name)

    def damage(self, files: Mapping[str, bytes | bytearray]) -> str | None:
        """What is worse than a leak; ``None`` also for formats that it can't check."""
        if self._format is None or self._is_beyond_qemu():
            return None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for path in self._paths[1:]:
                copy_image(path, folder)
            for path, data in files.items():
                (folder / Path(path).name).write_bytes(data)
            return self._check(folder / self._paths[0].name)

    def _is_beyond_qemu(self) -> bool:
        """What QEMU refuses, sound or not (see support/interop.py), or parents that it doesn't read."""
        if len(self._paths) > 1 and self._format not in ("qcow2", "qed"):
            return True
        facts = read_layer(self._paths[0]).facts
        strange_block = (self._format, facts.block_size) == ("qed", 4096)  # with tables of one cluster
        if self._format == "vdi":
            strange_block = facts.block_size != 1 << 20
        return strange_block or facts.sector_size != SECTOR

    def _check(self, path: Path) -> str | None:
        repair = ["-r", "all"] if self._format == "vhdx" else []  # it must replay the log
        command = ["qemu-img", "check", "--output=json", *repair, "-f", str(self._format), str(path)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False, cwd=path.parent
        )
        allowed = int("not closed correctly" in done.stderr)  # Parallels' mark counts as one
        if done.returncode in (0, _LEAKS) or allowed:
            facts = json.loads(done.stdout)
            if facts.get("corruptions", 0) <= allowed and not facts.get("check-errors"):
                return None
        return f"{done.returncode}: {done.stdout}{done.stderr}"
