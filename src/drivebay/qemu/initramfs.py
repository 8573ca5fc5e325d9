"""The root file system of the tiny guest: busybox, a few kernel modules, and a script to run.

The guest talks on its serial line in *marks*, lines that start with ``@@``:

==================================== =========================================================
``@@boot``                           user space is reached
``@@disk N NAME BYTES MODEL``        disk number N was found: ``/dev/disk<N>`` is ``/dev/<NAME>``
``@@missing N``                      disk number N did not appear within 60 s (the script is not run)
``@@end STATUS``                     the script ended with this exit status; the guest powers off
==================================== =========================================================

A script prints marks of its own with ``echo "@@word ..."``. It runs with ``sh -e``: the first command that
fails ends it.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from drivebay.qemu.cpio import CpioFile, archive, directory, regular, symlink
from drivebay.qemu.kernel import Module

MARK = "@@"

_FOLDERS = ("bin", "dev", "proc", "sys", "mnt", "modules", "tmp")

# A disk is told by its serial number, since Linux names disks in the order in which they happen to answer.
_INIT = r"""#!/bin/sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "@@boot"

finish() {
    sync
    echo "@@end $1"
    poweroff -f
}

serial_number() {
    for file in device/vpd_pg80 device/serial serial; do
        [ -e "$1/$file" ] && tr -dc 'a-z0-9' < "$1/$file" && return
    done
}

find_disk() {
    for entry in /sys/block/*; do
        case "$(serial_number "$entry" 2>/dev/null)" in
            *drivebay"$1")
                name=${entry##*/}
                ln -s "$name" "/dev/disk$1"
                size=$(($(cat "$entry/size") * 512))
                echo "@@disk" "$1" "$name" "$size" $(cat "$entry/device/model" 2>/dev/null)
                return 0 ;;
        esac
    done
    return 1
}

wait_for_disk() {
    tries=0
    until find_disk "$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "@@missing $1"; finish 1; }
        sleep 0.2
    done
}

while read -r module; do
    insmod "/modules/$module.ko"
done < /modules/order

number=0
while [ "$number" -lt "$(cat /disks)" ]; do
    wait_for_disk "$number"
    number=$((number + 1))
done

sh -e /script
finish $?
"""


def build(busybox: bytes, modules: Sequence[Module], disks: int, script: str) -> bytes:
    """The archive for a guest that loads ``modules`` in order, waits for ``disks`` disks, runs ``script``."""
    files = [directory(path) for path in _FOLDERS]
    # The kernel opens it for init's output before devtmpfs is mounted.
    files.append(CpioFile("dev/console", stat.S_IFCHR | 0o600))
    files += [regular("bin/busybox", busybox, executable=True), symlink("bin/sh", "busybox")]
    files += [regular(f"modules/{module.name}.ko", module.content) for module in modules]
    files.append(regular("modules/order", "".join(f"{module.name}\n" for module in modules).encode()))
    files.append(regular("disks", f"{disks}\n".encode()))
    files.append(regular("script", script.encode()))
    files.append(regular("init", _INIT.encode(), executable=True))
    return archive(files)
