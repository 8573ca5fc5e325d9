r"""A tiny Linux guest that runs a shell script on disks that drivebay serves, in seconds.

::

    guest = TinyGuest.prepare(on_status=print)            # finds QEMU, busybox and a kernel (downloaded once)
    result = guest.boot(
        "mount -t ext4 /dev/disk0 /mnt\n"
        "echo infected > /mnt/virus\n"
        "umount /mnt\n"
        'echo "@@infected"\n',
        [NbdDisk("/tmp/disk.sock")],                      # on a SATA (AHCI) controller
        on_line=print,                                    # every line of the serial console as it comes
        timeout=180,
    )
    assert "infected" in result.marks

The script is one for busybox's shell; disk number N is ``/dev/disk<N>``. What the guest prints by itself is
told in `drivebay.qemu.initramfs`. When `boot` returns, the script has succeeded, its writes were flushed and
the guest is off.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.machines.kinds import KINDS, kind_of
from drivebay.qemu import elf, initramfs, process
from drivebay.qemu.emulator import Accelerator, accelerator, find_qemu
from drivebay.qemu.initramfs import GuestDrive
from drivebay.qemu.kernel import GuestKernel
from drivebay.qemu.kernel_package import OnStatus, cached_kernel
from drivebay.qemu.machine import DirectKernel, NbdDisk, arguments, serial
from drivebay.qemu.process import OnLine

INITRAMFS = "guest.cpio"
KERNEL_VARIABLE = "DRIVEBAY_GUEST_KERNEL"

_FILE_SYSTEM_MODULES = ("crc32c_generic", "ext4")
# For what a machine has besides disks: CDs, the power button, the guest agent's line.
_MACHINE_MODULES = ("sr_mod", "isofs", "button", "evdev", "virtio_pci", "virtio_console")
_COMMAND_LINE = "console=ttyS0 panic=-1 quiet mitigations=off"
# Spares the emulated machine the measuring of its own clock.
_TCG_COMMAND_LINE = f"{_COMMAND_LINE} tsc_early_khz=2000000"


@dataclass(frozen=True, slots=True)
class GuestResult:
    """How a guest's run went: every line of its serial console, and the seconds that QEMU ran."""

    lines: tuple[str, ...]
    seconds: float
    accelerator: Accelerator

    @property
    def marks(self) -> tuple[str, ...]:
        """The lines that the guest marked with ``@@``, without the mark."""
        found = (line.partition(initramfs.MARK) for line in self.lines)
        return tuple(text for _, mark, text in found if mark)


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """All that is needed to boot the guest; make it with `prepare`, then `boot` it as often as you like."""

    qemu: str
    accelerator: Accelerator
    kernel: GuestKernel
    busybox: bytes

    @classmethod
    def prepare(cls, *, on_status: OnStatus = lambda _: None) -> TinyGuest:
        """Find the parts; the first call on a machine downloads a kernel (``on_status`` is told so).

        The kernel is looked for in the folder that the environment variable ``DRIVEBAY_GUEST_KERNEL`` names,
        then in the user's cache, then in the distribution's packages. Raises `StorageError`: NOT_FOUND names
        the missing part and its package, UNSUPPORTED a host that is not x86-64.
        """
        if platform.machine() != "x86_64":
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"the tiny guest's kernel and busybox are for x86-64, and this host is {platform.machine()}; "
                "use an x86-64 host",
                operation="prepare the guest",
            )
        return cls(find_qemu(), accelerator(), _find_kernel(on_status), _find_busybox())

    def boot(
        self,
        script: str,
        disks: Sequence[NbdDisk],
        *,
        on_line: OnLine | None = None,
        timeout: float = 180,
    ) -> GuestResult:
        """Boot with ``disks``, run ``script``, power off. Takes 4 to 20 s plus the script's time without KVM.

        ``on_line`` is called in this thread with each line of the serial console; what it raises stops the
        guest and is passed on. Raises `StorageError` (IO) when the script fails, the guest stops too early,
        or ``timeout`` seconds have passed; QEMU is gone then.
        """
        modules = self.kernel.modules([*_drivers(disk.controller for disk in disks), *_FILE_SYSTEM_MODULES])
        drives = [GuestDrive(f"disk{index}", serial(index)) for index in range(len(disks))]
        with tempfile.NamedTemporaryFile(prefix="drivebay-", suffix=".cpio") as file:
            file.write(initramfs.build(self.busybox, modules, drives, script))
            file.flush()
            command = arguments(
                disks, self._kernel(file.name), program=self.qemu, accelerator=self.accelerator
            )
            output = process.run(command, timeout=timeout, on_line=on_line)
        return _succeeded(GuestResult(output.lines, output.seconds, self.accelerator))

    def files(
        self,
        folder: Path,
        script: str,
        kinds: Iterable[str],
        drives: Sequence[GuestDrive] = (),
        *,
        efi: bool = False,
    ) -> DirectKernel:
        """Write into ``folder`` what a machine needs to boot this guest directly and run ``script``.

        It gets the drivers for these kinds of controllers, and for what a machine has besides disks; the
        script begins when all ``drives`` are there. With ``efi`` it is EFI firmware that starts the kernel.
        """
        modules = self.kernel.modules([*_drivers(kinds), *_FILE_SYSTEM_MODULES, *_MACHINE_MODULES])
        target = folder / INITRAMFS
        target.write_bytes(initramfs.build(self.busybox, modules, drives, script))
        return self._kernel(os.fspath(target), efi=efi)

    def _kernel(self, initramfs_path: str, *, efi: bool = False) -> DirectKernel:
        command_line = _TCG_COMMAND_LINE if self.accelerator == "tcg" else _COMMAND_LINE
        return DirectKernel(self.kernel.image_for(efi=efi), Path(initramfs_path), command_line)


def _find_kernel(on_status: OnStatus) -> GuestKernel:
    folder = os.environ.get(KERNEL_VARIABLE)
    if folder:
        return GuestKernel.open(Path(folder))
    cache = platformdirs.user_cache_path("drivebay") / "guest"
    modules = {*_drivers(KINDS), *_FILE_SYSTEM_MODULES, *_MACHINE_MODULES}
    return cached_kernel(cache, sorted(modules), on_status)


def _drivers(kinds: Iterable[str]) -> list[str]:
    """The drivers for kinds of controllers that QEMU has."""
    rows = (kind_of(name).qemu for name in kinds)
    return list(dict.fromkeys(name for row in rows if row for name in row.modules))


def _find_busybox() -> bytes:
    path = shutil.which("busybox", path=os.pathsep.join(("/bin", "/usr/bin", os.environ.get("PATH", ""))))
    try:
        content = Path(path).read_bytes() if path else None
    except OSError as error:
        raise from_os_error(error, "read busybox", path=path) from error
    if content is None or not elf.is_static(content):
        raise StorageError(
            ErrorKind.NOT_FOUND,
            "the guest needs a static busybox; install it (Debian and Ubuntu: the package busybox-static)",
            path=path,
            operation="prepare the guest",
        )
    return content


def _succeeded(result: GuestResult) -> GuestResult:
    ends = [mark for mark in result.marks if mark.startswith("end ")]
    if ends == ["end 0"]:
        return result
    what = f"the guest's script failed ({ends[-1]})" if ends else "the guest stopped before its script ended"
    tail = "\n".join(result.lines[-20:])
    raise StorageError(
        ErrorKind.IO, f"{what}; look at its last lines for the cause:\n{tail}", operation="run a guest"
    )
