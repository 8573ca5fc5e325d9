"""The tight paths: runs of plain reads or plain writes, a whole batch at a time, still without I/O.

A run becomes the list that the disk's batch forms take. The replies to reads are laid out in one buffer,
each header followed by the room that the disk fills, so that one send answers them all.
"""

from __future__ import annotations

from drivebay.exports.nbd.replies import SimpleReplies
from drivebay.exports.nbd.requests import RequestFormat

SLAB_SIZE = (1 << 20) + (64 << 10)  # a read of 1 MiB with its header, or some 250 of 4 KiB

Batch = list[tuple[int, memoryview]]


class Slab:
    """The buffer in which replies to a batch of reads are laid out; used again for every batch."""

    __slots__ = ("buffer", "size", "view")

    def __init__(self, size: int = SLAB_SIZE) -> None:
        self.buffer = bytearray(size)
        self.view = memoryview(self.buffer)
        self.size = size


def plan_reads(
    replies: SimpleReplies, inbox: memoryview, start: int, end: int, slab: Slab
) -> tuple[Batch, int]:
    """Lay out the replies to the plain reads that ``inbox[start:end]`` begins with.

    Returns the batch for the disk and where the replies end in the slab. An empty batch means that the
    first request is none, is empty, or does not fit the slab.
    """
    requests = replies.requests
    plain, pack, header = requests.plain_read, replies.pack_data, replies.data_header
    buffer, view, size = slab.buffer, slab.view, slab.size
    batch: Batch = []
    append = batch.append
    at = 0
    for kind, cookie, offset, length in requests.decode_run(inbox, start, (end - start) // requests.size):
        data = at + header
        stop = data + length
        if kind != plain or not data < stop <= size:
            break
        pack(buffer, at, cookie, offset, length)
        append((offset, view[data:stop]))
        at = stop
    return batch, at


def plan_writes(
    requests: RequestFormat, inbox: memoryview, start: int, end: int
) -> tuple[Batch, list[int], int]:
    """The whole plain writes that ``inbox[start:end]`` begins with.

    Returns the batch for the disk (payloads are views of ``inbox``), the cookies, and where the last
    payload ends.
    """
    plain, unpack, header = requests.plain_write, requests.header.unpack_from, requests.size
    batch: Batch = []
    cookies: list[int] = []
    at = start
    while end - at >= header:
        kind, cookie, offset, length = unpack(inbox, at)
        data = at + header
        stop = data + length
        if kind != plain or stop > end:
            break
        batch.append((offset, inbox[data:stop]))
        cookies.append(cookie)
        at = stop
    return batch, cookies, at
