"""A Linux kernel for guests: a folder that holds the kernel's image and its modules.

The folder may be an unpacked kernel package (``boot/vmlinuz-*``, ``lib/modules/*/...``) or the small copy
that `drivebay.qemu.kernel_package` keeps (``vmlinux``, ``vmlinuz``, ``*.ko``): the image and the modules are
looked for by name, anywhere below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.qemu import elf
from drivebay.qemu.compression import decompress

BUILTIN = "modules.builtin"

_SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")
# Newer kernels have this inside a library that ext4 depends on, and no module of this name.
_ABSORBED = frozenset({"crc32c_generic"})


@dataclass(frozen=True, slots=True)
class Module:
    """One loadable module: its name (with underscores) and its uncompressed content."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """An image that QEMU can start, and where its modules are.

    ``packed`` is the image as distributions have it, which EFI firmware can start, too.
    """

    image: Path
    files: dict[str, Path]
    builtin: frozenset[str]
    packed: Path | None = None

    @classmethod
    def open(cls, folder: Path) -> GuestKernel:
        """Look through ``folder``. Raises `StorageError` (NOT_FOUND) when no kernel is below it."""
        packed = _newest(folder.rglob("vmlinuz*"))
        image = _newest(folder.rglob("vmlinux")) or packed
        if image is None:
            raise StorageError(
                ErrorKind.NOT_FOUND,
                "no vmlinux or vmlinuz-* below this folder; name one with a Linux kernel and its modules",
                path=folder,
                operation="find a kernel for the guest",
            )
        files = {_module_name(path): path for path in folder.rglob("*.ko*") if path.name.endswith(_SUFFIXES)}
        lists = [path.read_text() for path in folder.rglob(BUILTIN)]
        builtin = frozenset(_module_name(Path(line)) for text in lists for line in text.split())
        return cls(image, files, builtin, packed)

    def image_for(self, *, efi: bool) -> Path:
        """What is started without firmware, or by ``efi`` firmware. Raises `StorageError` (NOT_FOUND)."""
        if not efi:
            return self.image
        if self.packed is None:
            raise StorageError(
                ErrorKind.NOT_FOUND,
                "EFI firmware can't start this kernel; put its compressed image (vmlinuz-*) beside it, or "
                "let the machine start with BIOS",
                path=self.image,
                operation="find a kernel for the guest",
            )
        return self.packed

    def modules(self, names: Iterable[str]) -> list[Module]:
        """The named modules and all that they depend on, each after what it needs.

        What is built into the kernel is left out. Raises `StorageError` (NOT_FOUND) for a module that is
        neither there nor built in.
        """
        ordered: dict[str, Module] = {}
        for name in names:
            self._collect(_normal(name), ordered)
        return list(ordered.values())

    def _collect(self, name: str, ordered: dict[str, Module]) -> None:
        if name in ordered or name in self.builtin or (name in _ABSORBED and name not in self.files):
            return
        module = Module(name, self._content(name))
        for dependency in elf.module_dependencies(module.content):
            self._collect(_normal(dependency), ordered)
        ordered[name] = module

    def _content(self, name: str) -> bytes:
        path = self.files.get(name)
        if path is None:
            raise StorageError(
                ErrorKind.NOT_FOUND,
                f"the guest's kernel has no module {name}; use a generic kernel of a distribution",
                path=self.image,
                operation="find a kernel module",
            )
        try:
            return decompress(path.read_bytes())
        except OSError as error:
            raise from_os_error(error, "read a kernel module", path=path) from error


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(
        (path for path in paths if path.is_file()), key=lambda path: path.stat().st_mtime, default=None
    )


def _module_name(path: Path) -> str:
    return _normal(path.name.partition(".ko")[0])


def _normal(name: str) -> str:
    """Linux takes dashes and underscores in module names for the same."""
    return name.replace("-", "_")
