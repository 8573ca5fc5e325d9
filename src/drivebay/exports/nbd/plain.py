"""The tight paths: runs of plain reads or plain writes, a whole batch at a time, still without I/O.

A run becomes the list that the disk's batch forms take. The replies to reads are laid out in one buffer,
each header followed by the room that the disk fills, so that one send answers them all.
"""

from __future__ import annotations

from drivebay.exports.nbd.replies import SimpleReplies
from drivebay.exports.nbd.requests import RequestFormat

SLAB_SIZE = (1 << 20) + (64 << 10)  # a read of 1 MiB with its header, or some 250 of 4 KiB
_WORD = 4  # bytes: what all headers are made of
_FEW = 6  # requests; up to here, each by itself is faster
_MOST = 256  # requests in one batch

Batch = list[tuple[int, memoryview]]


class Slab:
    """The buffer in which replies to a batch of reads are laid out; used again for every batch.

    What replies to reads of one length have in common stays there for the next batch of them.
    """

    __slots__ = ("_alike", "_rooms", "buffer", "size", "view", "words")

    def __init__(self, size: int = SLAB_SIZE) -> None:
        self.buffer = bytearray(size)
        self.view = memoryview(self.buffer)
        self.words = self.view.cast("I")
        self.size = size
        self._alike: tuple[SimpleReplies, int] | None = None
        self._rooms: list[memoryview] = []

    def rooms(self, replies: SimpleReplies, length: int, count: int) -> list[memoryview]:
        """Room for the data of ``count`` reads of ``length`` bytes, or of more; headers stand before each."""
        if self._alike != (replies, length):
            self.forget()
            self._alike = replies, length
        header = replies.data_header
        for number in range(len(self._rooms), count):
            at = number * (header + length)
            replies.pack_data(self.buffer, at, 0, 0, length)
            self._rooms.append(self.view[at + header : at + header + length])
        return self._rooms

    def kept_length(self, replies: SimpleReplies) -> int:
        """The length of the reads whose replies stay laid out, if they are of this style; else 0."""
        return self._alike[1] if self._alike is not None and self._alike[0] is replies else 0

    def forget(self) -> None:
        """Something else is about to be laid out."""
        self._alike = None
        self._rooms = []


def plan_reads(
    replies: SimpleReplies, inbox: memoryview, start: int, end: int, slab: Slab
) -> tuple[Batch, int]:
    """Lay out the replies to the plain reads that ``inbox[start:end]`` begins with.

    Returns the batch for the disk and where the replies end in the slab. An empty batch means that the
    first request is none, is empty, or does not fit the slab.
    """
    requests = replies.requests
    count = min((end - start) // requests.size, _MOST)
    # Payloads of writes may follow: where the last header is no read, nothing is decoded ahead.
    last = start + (count - 1) * requests.size
    if count > _FEW and requests.header.unpack_from(inbox, last)[0] == requests.plain_read:
        alike = _plan_alike(replies, inbox[start : last + requests.size], slab)
        if alike is not None:
            return alike
    kept = slab.kept_length(replies)
    plain, pack, header = requests.plain_read, replies.pack_data, replies.data_header
    buffer, view, size = slab.buffer, slab.view, slab.size
    batch: Batch = []
    append = batch.append
    at = 0
    for kind, cookie, offset, length in requests.decode_run(inbox, start, count):
        data = at + header
        stop = data + length
        if kind != plain or not data < stop <= size:
            break
        if length != kept:
            slab.forget()
        pack(buffer, at, cookie, offset, length)
        append((offset, view[data:stop]))
        at = stop
    return batch, at


def _plan_alike(replies: SimpleReplies, headers: memoryview, slab: Slab) -> tuple[Batch, int] | None:
    """The same for whole headers that are all plain reads of one length, the usual case; else ``None``.

    Only what tells replies apart is copied from the requests, a column of words at a time.
    """
    requests = replies.requests
    kinds, _, offsets, lengths = zip(*requests.header.iter_unpack(headers), strict=True)
    count, length = len(kinds), lengths[0]
    if kinds.count(requests.plain_read) != count or lengths.count(length) != count:
        return None
    reply = replies.data_header + length
    count = min(count, slab.size // reply)
    if not (length and count) or length % _WORD:
        return None
    rooms = slab.rooms(replies, length, count)
    words = headers[: count * requests.size].cast("I")
    for to, at in replies.copied_words:
        slab.words[to : count * reply // _WORD : reply // _WORD] = words[at :: requests.size // _WORD]
    return list(zip(offsets[:count], rooms, strict=False)), count * reply


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
    while end - at >= header and len(batch) < _MOST:
        kind, cookie, offset, length = unpack(inbox, at)
        data = at + header
        stop = data + length
        if kind != plain or stop > end:
            break
        batch.append((offset, inbox[data:stop]))
        cookies.append(cookie)
        at = stop
    return batch, cookies, at
