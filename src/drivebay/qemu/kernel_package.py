"""Get a Linux kernel for guests from the distribution, and keep a small copy of it in the user's cache.

The package is downloaded and unpacked, never installed. Only the kernel's image (also uncompressed, which
starts sooner) and the few modules that guests need stay: some 80 MB instead of 400.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.qemu.bzimage import uncompressed_kernel
from drivebay.qemu.kernel import BUILTIN, GuestKernel

OnStatus = Callable[[str], None]

# The packages that always depend on the newest kernel: Debian's and Ubuntu's.
_META_PACKAGES = ("linux-image-amd64", "linux-image-generic")
_PART = re.compile(r"linux-(?:image|modules|modules-extra)-\d[\w.+-]*")
_LAYOUT = "vmlinux and vmlinuz"  # of a copy; older ones are not taken for it
_OPERATION = "get a kernel for the guest"


def cached_kernel(cache: Path, modules: Sequence[str], on_status: OnStatus) -> GuestKernel:
    """The kernel with ``modules`` that is kept below ``cache``; on the first use it is downloaded with apt.

    Safe when several processes do it at once (one downloads, the others wait) and when it is interrupted
    (nothing half-made is ever taken for complete). Remove ``cache`` to get a newer kernel.
    Raises `StorageError`.
    """
    wanted = " ".join([_LAYOUT, *sorted(modules)])
    target = cache / f"kernel-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    try:
        if not target.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache / "lock"):
                if not target.is_dir():
                    _make(target, modules, on_status)
        return GuestKernel.open(target)
    except OSError as error:
        raise from_os_error(error, _OPERATION, path=error.filename or cache) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(target: Path, modules: Sequence[str], on_status: OnStatus) -> None:
    with tempfile.TemporaryDirectory(prefix="making-", dir=target.parent) as folder:
        packages, tree, small = (Path(folder) / name for name in ("packages", "tree", "small"))
        for made in (packages, tree, small):
            made.mkdir()
        for package in download(packages, on_status):
            _run(["dpkg-deb", "-x", str(package), str(tree)])
        distil(GuestKernel.open(tree), modules, small)
        small.rename(target)
    for leftover in target.parent.glob("making-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def distil(kernel: GuestKernel, modules: Iterable[str], folder: Path) -> None:
    """Write into ``folder`` what `GuestKernel.open` needs of ``kernel`` for guests with ``modules``."""
    image = kernel.image.read_bytes()
    plain = uncompressed_kernel(image)
    (folder / "vmlinuz").write_bytes(image)
    if plain is not None:
        (folder / "vmlinux").write_bytes(plain)
    (folder / BUILTIN).write_text("".join(f"{name}.ko\n" for name in sorted(kernel.builtin)))
    for module in kernel.modules(modules):
        (folder / f"{module.name}.ko").write_bytes(module.content)


def download(folder: Path, on_status: OnStatus) -> list[Path]:
    """Download the distribution's newest kernel packages into ``folder``, without installing them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise _failure(
            "this is not a Debian or Ubuntu system, so apt cannot fetch a kernel; set DRIVEBAY_GUEST_KERNEL "
            "to a folder with a Linux kernel (vmlinuz-*) and its modules (*.ko)"
        )
    on_status("downloading a Linux kernel for the guest (once, about 70 MB)")
    try:
        _download(folder)
    except StorageError:
        on_status("updating apt's package lists")
        # One broken list of many makes it fail, and the others will do: the next step tells.
        subprocess.run(
            [*_as_root(), "apt-get", "-qq", "update"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        _download(folder)
    return sorted(folder.glob("*.deb"))


def _download(folder: Path) -> None:
    names = package_names(_dependencies)
    if not names:
        raise _failure("apt offers no kernel package; run 'apt-get update' as root, then try again")
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    _run(["apt-get", "-qq", *sandbox, "download", *names], folder)


def package_names(dependencies: Callable[[str], str]) -> list[str]:
    """The packages that make up the newest kernel; ``dependencies`` gives a package's ``Depends`` field.

    Debian has one package for all; Ubuntu splits the modules off, and the image depends on them.
    """
    found: dict[str, None] = {}
    for meta in _META_PACKAGES:
        waiting = [meta]
        while waiting:
            parts = _PART.findall(dependencies(waiting.pop()))
            new = [name for name in parts if name not in found]
            found |= dict.fromkeys(new)
            waiting += new
        if found:
            break
    return list(found)


def _dependencies(package: str) -> str:
    done = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", package], capture_output=True, text=True, check=False
    )
    match = re.search(r"^Depends: (.*)$", done.stdout, re.MULTILINE)
    return match[1] if match else ""


def _as_root() -> list[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise _failure("apt's package lists are missing or old; run 'apt-get update' as root, then try again")
    return ["sudo", "-n"]


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise _failure(f"'{' '.join(command)}' failed: {said}; run it by hand as root, then try again")


def _failure(message: str) -> StorageError:
    return StorageError(ErrorKind.NOT_FOUND, message, operation=_OPERATION)
