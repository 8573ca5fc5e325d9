"""The root file system of the tiny guest: busybox, a few kernel modules, and a script to run.

The guest talks on its serial line in *marks*, lines that start with ``@@``:

==================================== =========================================================
``@@boot``                           user space is reached
``@@disk LABEL NAME BYTES MODEL``    a drive was found (see `GuestDrive`): its link leads to ``/dev/<NAME>``
``@@missing LABEL``                  a drive did not appear within 60 s (the script is not run)
``@@end STATUS``                     the script ended with this exit status; the guest powers off
==================================== =========================================================

A script prints marks of its own with ``echo "@@word ..."``. It runs with ``sh -e``: the first command that
fails ends it.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass

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

# The last one is a USB device's, four levels above its disk.
serial_number() {
    for file in device/vpd_pg80 device/serial serial device/../../../../serial; do
        [ -e "$1/$file" ] || continue
        case $file in
            *vpd_pg80) tail -c +5 "$1/$file" && return ;;
            *) cat "$1/$file" && return ;;
        esac
    done
}

# Programs are slow to start in an emulated machine: each serial number is read once.
is_wanted() {
    known=/tmp/serial-${1##*/}
    case $way in
        floppy) [ "${1##*/}" = "fd$wanted" ]; return ;;
        namespace*) read -r number < "$1/nsid" && [ "$number" = "${way#namespace}" ] || return ;;
    esac
    [ -s "$known" ] || serial_number "$1" > "$known"
    read -r found < "$known"
    [ "$found" = "$wanted" ]
}

find_drive() {
    for entry in /sys/block/*; do
        is_wanted "$entry" 2>/dev/null || continue
        name=${entry##*/}
        mkdir -p "$(dirname "/dev/$link")"
        ln -s "/dev/$name" "/dev/$link"
        size=$(($(cat "$entry/size") * 512))
        echo "@@disk" "$label" "$name" "$size" $(cat "$entry/device/model" 2>/dev/null)
        return
    done
    return 1
}

wait_for_drive() {
    label=${link#disk}
    label=${label#slot/}
    tries=0
    until find_drive; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "@@missing $label"; finish 1; }
        sleep 0.2
    done
}

while read -r module; do
    insmod "/modules/$module.ko"
done < /modules/order

while IFS="$(printf '\t')" read -r link way wanted; do
    wait_for_drive
done < /drives

sh -e /script
finish $?
"""


@dataclass(frozen=True, slots=True)
class GuestDrive:
    """A drive that the guest waits for, and then has as ``/dev/<link>``.

    ``link`` is ``disk<LABEL>`` or ``slot/<LABEL>``. The drive is told by its ``serial`` number; namespaces of
    one NVMe controller, which have the same, also by their number ``namespace`` (from 1). A floppy drive has
    none, and is told by its ``unit`` instead.
    """

    link: str
    serial: str = ""
    namespace: int = 0
    unit: int | None = None

    @property
    def line(self) -> str:
        """As init reads it."""
        if self.unit is not None:
            return f"{self.link}\tfloppy\t{self.unit}\n"
        way = f"namespace{self.namespace}" if self.namespace else "serial"
        return f"{self.link}\t{way}\t{self.serial}\n"


def build(busybox: bytes, modules: Sequence[Module], drives: Sequence[GuestDrive], script: str) -> bytes:
    """The archive for a guest that loads ``modules`` in order, waits for ``drives``, runs ``script``."""
    files = [directory(path) for path in _FOLDERS]
    # The kernel opens it for init's output before devtmpfs is mounted.
    files.append(CpioFile("dev/console", stat.S_IFCHR | 0o600))
    files += [regular("bin/busybox", busybox, executable=True), symlink("bin/sh", "busybox")]
    files += [regular(f"modules/{module.name}.ko", module.content) for module in modules]
    files.append(regular("modules/order", "".join(f"{module.name}\n" for module in modules).encode()))
    files.append(regular("drives", "".join(drive.line for drive in drives).encode()))
    files.append(regular("script", script.encode()))
    files.append(regular("init", _INIT.encode(), executable=True))
    return archive(files)
