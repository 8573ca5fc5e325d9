"""Closes the commit epochs of written disks in time, without a client's flush (design, section 5)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from time import monotonic

from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.exports.nbd.workers import Lane, Workers

_log = logging.getLogger(__name__)

_WATCH = 2.0  # seconds: an epoch is due one second after it began
_RETRY = 5.0  # seconds to wait after a flush that failed


class EpochKeeper:
    """Flushes disks whose epoch is due, one flush at a time for each. Runs in the loop's thread.

    `check` is needed now and then while ``watched`` holds disks.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._lane = Lane()
        self.watched: dict[Disk, float] = {}  # until when to look at a disk
        self._flushing: set[Disk] = set()
        self._not_before: dict[Disk, float] = {}

    def written(self, disks: Iterable[Disk]) -> None:
        """These disks were written just now."""
        until = monotonic() + _WATCH
        for disk in disks:
            self.watched[disk] = until

    def forget(self, disk: Disk) -> None:
        """This disk is about to be closed."""
        self.watched.pop(disk, None)
        self._not_before.pop(disk, None)

    def check(self) -> None:
        """Begin the flushes that are due, in the workers."""
        now = monotonic()
        for disk, until in list(self.watched.items()):
            if disk in self._flushing or now < self._not_before.get(disk, 0):
                continue
            if disk.commit_due():
                self._flushing.add(disk)
                self._workers.submit(self._lane, partial(_flush, disk), partial(self._flushed, disk))
            elif now > until:
                del self.watched[disk]

    def _flushed(self, disk: Disk, error: Exception | None) -> None:
        self._flushing.discard(disk)
        if isinstance(error, StorageError) and error.kind is ErrorKind.STATE:
            self.forget(disk)  # its owner has closed it
        elif error is not None:
            _log.error("a background flush failed: %s", error)
            self._not_before[disk] = monotonic() + _RETRY


def _flush(disk: Disk) -> Exception | None:
    try:
        disk.flush()
    except Exception as error:  # whatever it is, the server goes on
        return error
    return None
