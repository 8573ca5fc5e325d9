"""The sound images that are damaged: of every registered format, by drivebay, by QEMU and of the corpus."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import drivebay
from drivebay.errors import StorageError
from drivebay.formats.dmg.tables import ChunkType
from support.corpus import CorpusImage, all_images, unpack_case
from support.dmg_images import CODECS, Piece, Table, cut, make_dmg
from support.images import ImageSpec, make_image
from support.variants import Kind, all_kinds, child_kinds

KIB = 1 << 10
MIB = 1 << 20
LARGEST = 24 * MIB  # bytes of all files of a seed: each attempt copies them
GUEST_LINE = b"guest data of a seed image, line %06d\n"
_QEMU_SIZE = 2 * MIB + 64 * KIB


class Seed(NamedTuple):
    """An image, ``top``, in a folder of its own, with its further files and its parents."""

    name: str
    format: str
    folder: Path
    top: str


def guest_bytes(length: int, first: int = 0) -> bytes:
    """What the seeds' disks hold, so that it can be told from metadata."""
    lines = range(first, first + length // 38 + 1)
    return b"".join(GUEST_LINE % line for line in lines)[:length]


def make_seeds(folder: Path, formats: frozenset[str]) -> list[Seed]:
    """All seeds of ``formats`` (of every format if it is empty), made in ``folder``."""
    makers: tuple[Callable[[Path], Iterator[Seed]], ...] = (_own, _own_children, _by_qemu, _dmg, _corpus)
    seeds = [seed for make in makers for seed in make(folder) if not formats or seed.format in formats]
    return [seed for seed in seeds if _size(seed.folder) <= LARGEST]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _folder(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    return place


def _own(folder: Path) -> Iterator[Seed]:
    for kind in all_kinds():
        place = _folder(folder, f"own-{kind}".replace("=", "-"))
        spec = kind.spec(min(kind.size, 3 * MIB))
        try:
            make_image(place / f"top.{spec.extension}", spec)
        except StorageError:  # a kind that needs a parent, or more space
            continue
        _fill(place / f"top.{spec.extension}")
        yield Seed(place.name, kind.format, place, f"top.{spec.extension}")


def _own_children(folder: Path) -> Iterator[Seed]:
    for kind in child_kinds():
        place = _folder(folder, f"child-{kind}".replace("=", "-"))
        seed = _child(place, kind)
        if seed is not None:
            yield seed


def _child(place: Path, kind: Kind) -> Seed | None:
    spec = kind.spec(min(kind.size, 3 * MIB))
    base, top = place / f"base.{spec.extension}", place / f"top.{spec.extension}"
    try:
        make_image(base, ImageSpec(spec.size, format=kind.format))
        _fill(base)
        make_image(top, spec, base)
    except StorageError:
        return None
    _fill(top, first=5000)
    return Seed(place.name, kind.format, place, top.name)


def _fill(path: Path, first: int = 0) -> None:
    """Give the disk some content; an image that can't be written stays empty."""
    try:
        disk = drivebay.open(path, writable=True)
    except StorageError:
        return
    with disk:
        places = (0, 300 * KIB + 512, disk.size // 2 + 1536, disk.size - 4 * KIB)
        for number, place in enumerate(places):
            length = min(5 * KIB, disk.size - place)
            disk.write(place, guest_bytes(length, first + number * 300))
        disk.zero(700 * KIB, 70 * KIB)
        disk.flush()


_QEMU: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("qcow2-v2", "qcow2", ("-O", "qcow2", "-o", "compat=0.10,cluster_size=4k")),
    ("qcow2-v3", "qcow2", ("-O", "qcow2", "-o", "cluster_size=512,refcount_bits=2")),
    ("qcow2-64k", "qcow2", ("-O", "qcow2", "-o", "lazy_refcounts=on")),
    ("qcow2-l2", "qcow2", ("-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k")),
    ("qcow2-zlib", "qcow2", ("-c", "-O", "qcow2")),
    ("qcow2-zstd", "qcow2", ("-c", "-O", "qcow2", "-o", "compression_type=zstd")),
    ("qcow2-data", "qcow2", ("-O", "qcow2", "-o", "data_file=top.data")),
    ("qcow", "qcow", ("-O", "qcow")),
    ("qed", "qed", ("-O", "qed")),
    ("vmdk-sparse", "vmdk", ("-O", "vmdk")),
    ("vmdk-stream", "vmdk", ("-O", "vmdk", "-o", "subformat=streamOptimized")),
    ("vmdk-split", "vmdk", ("-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse")),
    ("vmdk-flat", "vmdk", ("-O", "vmdk", "-o", "subformat=monolithicFlat")),
    ("vhd", "vhd", ("-O", "vpc")),
    ("vhd-fixed", "vhd", ("-O", "vpc", "-o", "subformat=fixed")),
    ("vhdx", "vhdx", ("-O", "vhdx", "-o", "log_size=1M,block_size=1M")),
    ("parallels", "parallels", ("-O", "parallels", "-o", "cluster_size=64k")),
    ("vdi", "vdi", ("-O", "vdi")),
)
_EXTENSIONS = {"parallels": "hdd"}


def _by_qemu(folder: Path) -> Iterator[Seed]:
    if shutil.which("qemu-img") is None:
        return
    raw = folder / "content.raw"
    _write_content(raw)
    for name, form, arguments in _QEMU:
        place = _folder(folder, f"qemu-{name}")
        top = f"top.{_EXTENSIONS.get(form, form)}"
        made = _qemu_img(place, "convert", "-f", "raw", *arguments, str(raw), top)
        if form == "qcow2" and "data" not in name:
            made = made and _qemu_img(place, "snapshot", "-c", "first", top)
        if made:
            yield Seed(place.name, form, place, top)
    for form in ("qcow2", "qed", "vmdk"):
        yield from _qemu_child(folder, form, raw)


def _qemu_child(folder: Path, form: str, raw: Path) -> Iterator[Seed]:
    place = _folder(folder, f"qemu-child-{form}")
    made = _qemu_img(place, "convert", "-O", form, str(raw), f"base.{form}")
    if made and _qemu_img(place, "create", "-f", form, "-b", f"base.{form}", "-F", form, f"top.{form}"):
        yield Seed(place.name, form, place, f"top.{form}")


def _qemu_img(place: Path, *arguments: str) -> bool:
    command = ["qemu-img", *arguments]
    done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        print(f"no seed {place.name}: {done.stderr.strip() or 'qemu-img fails'}", flush=True)
    return done.returncode == 0


def _write_content(path: Path) -> None:
    with path.open("wb") as file:
        for number, place in enumerate((0, 600 * KIB + 512, _QEMU_SIZE - 4 * KIB)):
            file.seek(place)
            file.write(guest_bytes(4 * KIB, number * 300))


def _dmg(folder: Path) -> Iterator[Seed]:
    content = guest_bytes(200 * KIB)
    for kind in CODECS:
        tables = [Table(0, cut(kind, content, 64 * KIB)), Table(400, [Piece(ChunkType.ZERO, 0, 96)])]
        place = _folder(folder, f"made-dmg-{kind.name.lower()}")
        (place / "top.dmg").write_bytes(make_dmg(tables, 496))
        yield Seed(place.name, "dmg", place, "top.dmg")


def _corpus(folder: Path) -> Iterator[Seed]:
    images: dict[str, list[CorpusImage]] = {}
    for image in all_images():
        images.setdefault(image.case, []).append(image)
    for case, members in images.items():
        place = folder / "corpus" / case
        unpack_case(case, folder / "corpus")
        for image in members:
            name = f"corpus-{image.id}".replace("/", "-")
            yield Seed(name, image.format, place, image.files[0])
