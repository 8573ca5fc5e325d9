"""Putting empty images on top of several disks at once: the worker's part of an online snapshot."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from drivebay.chain import close_layers, open_image
from drivebay.chain.image import OpenedImage
from drivebay.chain.link import renew_link
from drivebay.chain.locks import keep_for_reading
from drivebay.engine.source import OpenedLayer
from drivebay.errors import StorageError
from drivebay.service.worker.slot import Slot

_log = logging.getLogger(__name__)


def push_all(slots: Sequence[Slot], paths: Sequence[str]) -> float:
    """Put the image at each path on top of its disk, on all of them or none; needs the slots for itself.

    The answer is for how many seconds writers were held. Raises StorageError.
    """
    with ExitStack() as opened:
        tops = [opened.enter_context(_open_top(path)) for path in paths]
        for slot in slots:
            slot.disk.flush()  # now, so that little is left when writers are held
        started = time.monotonic()
        with ExitStack() as held:
            for slot in slots:
                held.enter_context(slot.disk.quiesce())
            for slot, top in zip(slots, tops, strict=True):
                renew_link(top, slot.spec.paths[0], slot.format_of(0))
            _push(slots, [top.take(slot.spec.cache) for slot, top in zip(slots, tops, strict=True)])
        paused = time.monotonic() - started
    for slot, path in zip(slots, paths, strict=True):
        formats = ("", *slot.spec.formats) if slot.spec.formats else ()
        slot.spec = replace(slot.spec, paths=(path, *slot.spec.paths), formats=formats)
        _let_others_read(slot.disk.layers[1])
    return paused


def _open_top(path: str) -> OpenedImage:
    return open_image(path, search=[os.path.dirname(path)], writable=True)


def _push(slots: Sequence[Slot], layers: Sequence[OpenedLayer]) -> None:
    before: list[tuple[OpenedLayer, ...]] = []
    try:
        for slot, layer in zip(slots, layers, strict=True):
            before.append(slot.disk.layers)
            slot.disk.push(layer)
    except BaseException:
        pushed = len(before) - 1
        close_layers(layers[pushed:])
        for slot, old in zip(slots[:pushed], before[:pushed], strict=True):
            _take_off(slot, old)
        raise


def _take_off(slot: Slot, layers: Sequence[OpenedLayer]) -> None:
    """Undo one push. Writers are held: the new image is still empty."""
    try:
        with slot.disk.freeze():
            slot.disk.rebase(layers)
    except StorageError:
        _log.exception("%s keeps its new image, although the others got none", slot.spec.export)
        top = slot.disk.layers[0].sources[0].path
        slot.spec = replace(slot.spec, paths=(top, *slot.spec.paths))


def _let_others_read(layer: OpenedLayer) -> None:
    """The image is written no more: other machines may build upon it."""
    for source in layer.sources:
        keep_for_reading(source.fd, source.path)
