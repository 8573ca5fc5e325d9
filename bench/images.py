"""The images: each page of each disk holds its own number, so that every reply can be checked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import drivebay
from bench import wire
from bench.errors import BenchError
from bench.peers import QEMU_NBD, Image, running
from bench.plan import MIB

CHUNK = 16 * MIB
FIRST_PLACE = MIB  # where the base of a chain holds data

# Where a VDI's header keeps what `map_everything` needs (header version 1.1, little-endian 32-bit numbers).
VDI_MAP, VDI_DATA, VDI_BLOCKS, VDI_ALLOCATED = 0x154, 0x158, 0x180, 0x184

# Options without which the disk would not have the size that was asked for.
_EXACT = {"vpc": "force_size=on"}

Write = Callable[[int, bytes], None]


def raw_disk(folder: Path, size: int) -> Image:
    """A raw image with all its pages written."""
    path = folder / "disk.raw"
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(wire.pages(start // wire.PAGE, min(CHUNK, size - start) // wire.PAGE))
    return Image(path, "raw", size)


def vdi_copy(raw: Image) -> Image:
    """A dynamic VDI with the content of ``raw``, all its blocks allocated; made by qemu-img."""
    path = raw.path.with_suffix(".vdi")
    _run("qemu-img", "convert", "-f", "raw", "-O", "vdi", str(raw.path), str(path))
    return Image(path, "vdi", raw.size)


def copy(image: Image, path: Path) -> Image:
    """A second file with the same bytes."""
    shutil.copyfile(image.path, path)
    return Image(path, image.format, image.size)


def format_copy(raw: Image, name: str, extension: str) -> Image:
    """An image in QEMU's format ``name`` with the content of ``raw``, made by qemu-img."""
    path = raw.path.with_name(f"disk.{extension}")
    options = ["-o", _EXACT[name]] if name in _EXACT else []
    _run("qemu-img", "convert", "-f", "raw", "-O", name, *options, str(raw.path), str(path))
    return Image(path, name, raw.size)


def empty_image(folder: Path, name: str, extension: str, size: int) -> Image:
    """An image in QEMU's format ``name`` with nothing in it, made by qemu-img."""
    path = folder / f"empty.{extension}"
    options = ["-o", _EXACT[name]] if name in _EXACT else []
    _run("qemu-img", "create", "-q", "-f", name, *options, str(path), str(size))
    return Image(path, name, size)


def vdi_chain(folder: Path, size: int, depth: int) -> Image:
    """The top of a VDI chain made by drivebay, its disk's blocks of 1 MiB spread over the layers."""
    paths = [folder / f"{depth}-{at}.vdi" for at in range(depth)]
    for path, places in zip(paths, _spread(size, depth), strict=True):
        _next_vdi(path, size, paths)
        with drivebay.open(path, writable=True) as disk:
            _fill(disk.write, places)
    return Image(paths[-1], "vdi", size)


def _next_vdi(path: Path, size: int, paths: list[Path]) -> None:
    at = paths.index(path)
    if at:
        drivebay.create(path, parent=paths[at - 1])
    else:
        drivebay.create(path, size=size)


def qcow2_chain(folder: Path, size: int, depth: int) -> Image:
    """The top of a QCOW2 backing chain, spread over its layers just as `vdi_chain` does it."""
    paths = [folder / f"{depth}-{at}.qcow2" for at in range(depth)]
    for at, places in enumerate(_spread(size, depth)):
        _next_qcow2(paths[at], size, paths[at - 1] if at else None)
        _fill_qcow2(Image(paths[at], "qcow2", size), places)
    return Image(paths[-1], "qcow2", size)


def _next_qcow2(path: Path, size: int, parent: Path | None) -> None:
    backing = ["-b", str(parent), "-F", "qcow2"] if parent else []
    _run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(path), *([] if parent else [str(size)]))


def _fill_qcow2(image: Image, places: list[int]) -> None:
    with running(QEMU_NBD, image) as process, process.connect() as client:
        _fill(client.write, places)
        client.flush()


def _spread(size: int, depth: int) -> list[list[int]]:
    """For each layer the offsets of its blocks: every block in one layer, by chance, as many in each."""
    blocks = np.random.default_rng(depth).permutation(size // MIB)
    return [[int(block) * MIB for block in np.sort(blocks[layer::depth])] for layer in range(depth)]


def _fill(write: Write, places: list[int]) -> None:
    for offset in places:
        write(offset, wire.pages(offset // wire.PAGE, MIB // wire.PAGE))


def sparse_vdi(path: Path, size: int) -> Image:
    """A dynamic VDI of ``size`` bytes with one block of data, at `FIRST_PLACE`."""
    drivebay.create(path, size=size)
    with drivebay.open(path, writable=True) as disk:
        _fill(disk.write, [FIRST_PLACE])
    return Image(path, "vdi", size)


def sparse_vdi_chain(folder: Path, size: int, depth: int) -> list[Image]:
    """A chain, base first, with one block of data in each layer: the base's lies at `FIRST_PLACE`.

    Each image is the top of a chain of its own, so one chain gives all depths.
    """
    paths = [folder / f"{at}.vdi" for at in range(depth)]
    for path, place in zip(paths, _places(size, depth), strict=True):
        _next_vdi(path, size, paths)
        with drivebay.open(path, writable=True) as disk:
            _fill(disk.write, [place])
    return [Image(path, "vdi", size) for path in paths]


def sparse_qcow2_chain(folder: Path, size: int, depth: int) -> list[Image]:
    """As `sparse_vdi_chain`, in QCOW2."""
    images: list[Image] = []
    for at, place in enumerate(_places(size, depth)):
        image = Image(folder / f"{at}.qcow2", "qcow2", size)
        _next_qcow2(image.path, size, images[-1].path if images else None)
        _fill_qcow2(image, [place])
        images.append(image)
    return images


def _places(size: int, depth: int) -> Iterator[int]:
    step = size // depth // MIB * MIB
    return (FIRST_PLACE + at * step for at in range(depth))


def map_everything(image: Image) -> None:
    """Make every block of a VDI allocated, in mixed order, without writing data: the file becomes sparse."""
    with image.path.open("r+b") as file:
        header = np.frombuffer(file.read(512), "<u4")
        blocks = int(header[VDI_BLOCKS // 4])
        file.seek(int(header[VDI_MAP // 4]))
        file.write(np.random.default_rng(1).permutation(blocks).astype("<u4").tobytes())
        file.seek(VDI_ALLOCATED)
        file.write(blocks.to_bytes(4, "little"))
        file.truncate(int(header[VDI_DATA // 4]) + blocks * MIB)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{command[0]} fails: {done.stderr.strip()}")
