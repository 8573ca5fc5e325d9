"""Moving a disk to other images with the same content, while it is in use: after images were merged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from drivebay.chain import close_layers
from drivebay.chain.image import identity_of
from drivebay.engine.source import OpenedLayer
from drivebay.service.worker.opening import lock_layers, open_spec, unlock_layers
from drivebay.service.worker.slot import Slot


def rebase(
    slot: Slot,
    paths: tuple[str, ...],
    formats: tuple[str, ...],
    frozen: AbstractContextManager[None],
    *,
    settled: bool = False,
) -> float:
    """Let the disk consist of these images; ``frozen`` freezes it. For how many seconds it was frozen.

    The slot is needed for oneself. Somebody else may have changed the active image of a ``settled`` disk.
    Raises StorageError: then nothing has changed.
    """
    spec = replace(slot.spec, paths=paths, formats=formats)
    layers = list(open_spec(spec, told=True).layers)
    try:
        if not settled:
            _keep_top(slot, layers)
        started = time.monotonic()
        with frozen:
            _exchange(slot, layers)
        slot.spec = spec
    except BaseException:
        close_layers(_without(layers, slot.disk.layers))
        raise
    return time.monotonic() - started


def _keep_top(slot: Slot, layers: list[OpenedLayer]) -> None:
    """An active image that stays the active one also stays open: it goes on being written where it is."""
    old = slot.disk.layers[0]
    if identity_of(layers[0].sources[0].fd) == identity_of(old.sources[0].fd):
        close_layers(layers[:1])
        layers[0] = old


def _exchange(slot: Slot, layers: Sequence[OpenedLayer]) -> None:
    """Rebase the disk, and hand the locks of its files over to the newly opened ones."""
    before = slot.disk.layers
    leaving, joining = _without(before, layers), _without(layers, before)
    unlock_layers(leaving)
    try:
        lock_layers(joining, slot.spec, top=layers[0])
        slot.disk.rebase(layers)
    except BaseException:
        unlock_layers(joining)
        lock_layers(leaving, slot.spec, top=before[0])
        raise


def _without(layers: Sequence[OpenedLayer], others: Sequence[OpenedLayer]) -> list[OpenedLayer]:
    return [layer for layer in layers if not any(layer is other for other in others)]
