"""The storage controllers that QEMU can give a guest, one row each; a further controller is a further row."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.errors import ErrorKind, StorageError


@dataclass(frozen=True, slots=True)
class Controller:
    """How QEMU is told to make a controller and to put a disk on it.

    ``adapter`` is the ``-device`` text that makes the controller with the id ``{id}`` (None: each disk is a
    device on its own); ``drive`` puts the block node ``{node}`` with the serial number ``{serial}`` on port
    number ``{port}``, which is below ``ports``. ``modules`` are the drivers of a Linux guest.
    """

    name: str
    adapter: str | None
    drive: str
    ports: int
    modules: tuple[str, ...]


_ROWS = (
    Controller(
        "ahci",
        adapter="ich9-ahci,id={id}",
        drive="ide-hd,bus={id}.{port},drive={node},serial={serial},write-cache=on",
        ports=6,
        modules=("ahci", "sd_mod"),
    ),
    Controller(
        "lsilogic",
        adapter="lsi53c895a,id={id}",
        drive="scsi-hd,bus={id}.0,scsi-id={port},drive={node},serial={serial},write-cache=on",
        ports=7,
        modules=("sym53c8xx", "sd_mod"),
    ),
    Controller(
        "virtio-scsi",
        adapter="virtio-scsi-pci,id={id}",
        drive="scsi-hd,bus={id}.0,scsi-id={port},drive={node},serial={serial},write-cache=on",
        ports=256,
        modules=("virtio_pci", "virtio_scsi", "sd_mod"),
    ),
    Controller(
        "nvme",
        adapter=None,
        drive="nvme,drive={node},serial={serial}",
        ports=16,
        modules=("nvme",),
    ),
    Controller(
        "virtio-blk",
        adapter=None,
        drive="virtio-blk-pci,drive={node},serial={serial},write-cache=on",
        ports=16,
        modules=("virtio_pci", "virtio_blk"),
    ),
)

CONTROLLERS: dict[str, Controller] = {row.name: row for row in _ROWS}


def controller(name: str) -> Controller:
    """The row called ``name``. Raises `StorageError` (INVALID), which lists the known names."""
    try:
        return CONTROLLERS[name]
    except KeyError:
        known = ", ".join(CONTROLLERS)
        raise StorageError(
            ErrorKind.INVALID,
            f"there is no controller called {name!r}; choose one of {known}",
            operation="run QEMU",
        ) from None
