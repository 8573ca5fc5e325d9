"""The real guest agent, for a guest that has nothing but busybox: the program and the libraries it needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from drivebay.qemu.cpio import CpioFile, archive, directory, regular

# Where setup unpacks the package, which it does not install: this host needs no agent.
UNPACKED = Path(sys.prefix) / "guest-agent/usr/sbin"
# What a distribution's udev and service files would do.
START = (
    "mkdir -p /var/run; "
    "grep -q org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name && "
    "qemu-ga -m virtio-serial -p /dev/vport*p1 -t /var/run -f /var/run/qga.pid -d"
)


def add_guest_agent(initramfs: Path) -> None:
    """Add the agent to a guest's root file system: Linux unpacks one archive after the other."""
    with initramfs.open("ab") as file:
        file.write(archive(_files(_program())))


def _program() -> Path:
    found = shutil.which("qemu-ga", path=os.pathsep.join((str(UNPACKED), "/usr/sbin", os.environ["PATH"])))
    assert found, "there is no guest agent: run make setup, or install qemu-guest-agent"
    return Path(found)


def _files(program: Path) -> list[CpioFile]:
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True, timeout=60).stdout
    assert "not found" not in listed, f"libraries of the guest agent are missing on this host:\n{listed}"
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(", listed)]
    folders = {parent for path in libraries for parent in path.parents if parent.name}
    made = [directory(str(path)[1:]) for path in sorted(folders)]
    copies = [regular(str(path)[1:], path.read_bytes(), executable=True) for path in libraries]
    return [*made, *copies, regular("bin/qemu-ga", program.read_bytes(), executable=True)]
