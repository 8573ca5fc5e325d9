"""The server: one thread that runs one loop over epoll, and a few threads for what may wait."""

from __future__ import annotations

import contextlib
import gc
import select
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Event, Lock, Thread
from time import monotonic

from drivebay.errors import StorageError
from drivebay.exports.bandwidth import Bandwidth
from drivebay.exports.export import Export
from drivebay.exports.nbd.acceptor import Acceptor
from drivebay.exports.nbd.epochs import EpochKeeper
from drivebay.exports.nbd.listeners import listen_tcp, listen_unix
from drivebay.exports.nbd.shared import ServerStats, Shared
from drivebay.exports.nbd.waiting import Waiter
from drivebay.exports.nbd.workers import Workers

_TICK = 0.2  # seconds between looks at deadlines and epochs, while there are any


class NbdServer:
    """Offers disks over NBD. The caller opens and closes the disks; the server flushes them when it ends.

    `listen_unix` and `listen_tcp` may be called several times before `run`. A client that asks for the
    empty name gets the first export.
    """

    def __init__(
        self,
        exports: Mapping[str, Export],
        *,
        max_connections: int = 64,
        handshake_timeout: float = 15.0,
        drain_timeout: float = 10.0,
        workers: int = 4,
    ) -> None:
        self._workers = Workers(workers)
        self._shared = Shared(dict(exports), self._workers, select.epoll(), {})
        self._epochs = EpochKeeper(self._workers)
        self._acceptor = Acceptor(self._shared, max_connections, handshake_timeout)
        self._drain_timeout = drain_timeout
        self._stop = False
        self._running = False
        self._ending = Lock()
        self._waiter = Waiter(self._shared.epoll, self._shared.eagerness)
        self._next_tick = 0.0
        self._shared.handlers[self._workers.fd] = lambda _: self._workers.collect()
        self._shared.epoll.register(self._workers.fd, select.EPOLLIN)

    @property
    def stats(self) -> ServerStats:
        """Counters for display."""
        return self._shared.stats

    def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket; a `StorageError` IN_USE if another server listens there."""
        self._acceptor.add(listen_unix(path))

    def listen_tcp(self, host: str = "127.0.0.1", port: int = 10809) -> tuple[str, int]:
        """Listen on a TCP address and return it; port 0 takes a free port."""
        self._acceptor.add(listener := listen_tcp(host, port))
        name = listener.sock.getsockname()
        return name[0], name[1]

    def add_export(self, export: Export) -> None:
        """Offer one more disk, under a name that is not in use. Safe in any thread."""
        self._in_loop(partial(self._shared.exports.__setitem__, export.name, export))

    def remove_export(self, name: str) -> None:
        """Offer a disk no more: its clients are dropped when this returns. Safe in any thread.

        What of their requests the worker threads have begun still happens. Raises KeyError for an
        unknown name.
        """
        export = self._shared.exports[name]
        self._in_loop(partial(self._remove, export))

    def set_limit(self, bandwidth: Bandwidth, limit: int) -> None:
        """Change what all exports with this bandwidth may transfer, in bytes/s. Safe in any thread."""
        self._in_loop(partial(self._limit, bandwidth, limit))

    @contextlib.contextmanager
    def holding(self, export: Export) -> Iterator[None]:
        """Let requests to an export wait, where they keep nothing else from being served. Safe in any thread.

        Those that were under way are done when the block begins.
        """
        gate = export.gate
        self._in_loop(gate.hold)
        try:
            gate.idle.wait()
            yield
        finally:
            self._in_loop(gate.release)

    def run(self) -> None:
        """Serve until `stop`; then answer what is under way, flush every disk and close the sockets.

        Raises the `StorageError` of a disk whose last flush failed.
        """
        gc.freeze()  # what exists now stays: do not look at it again
        self._workers.start()
        self._running = True
        try:
            while not self._stop:
                self._turn(self._wait())
                if len(self._shared.connections) == 1:
                    self._alone()
            self._drain()
        finally:
            self._close()
            gc.unfreeze()
        self._flush_all()

    def stop(self) -> None:
        """End `run` soon. Safe in any thread and in a signal handler; may be called again."""
        self._stop = True
        self._workers.wake()

    @contextlib.contextmanager
    def in_thread(self, ended: Callable[[], None] = lambda: None) -> Iterator[NbdServer]:
        """Run in a thread while the context lasts; leaving it stops the server and waits for its end.

        ``ended`` is called in that thread when the server has ended, by itself or not.
        """
        failures: list[BaseException] = []

        def serve() -> None:
            try:
                self.run()
            except BaseException as error:
                failures.append(error)
            finally:
                ended()

        thread = Thread(target=serve, name="nbd-server")
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()
        if failures:
            raise failures[0]

    def _in_loop(self, task: Callable[[], None]) -> None:
        """Have the loop's thread do ``task``, and wait for that; while there is no loop, do it here."""
        done = Event()

        def job() -> None:
            try:
                task()
            finally:
                done.set()

        with self._ending:
            if self._running:
                self._workers.post(job)
            else:
                job()
        done.wait()

    def _remove(self, export: Export) -> None:
        if self._shared.exports.get(export.name) is export:
            del self._shared.exports[export.name]
        for connection in list(self._shared.connections):
            if connection.export is export:
                connection.drop("the export was removed")
        self._shared.written.discard(export.disk)
        self._epochs.forget(export.disk)

    def _limit(self, bandwidth: Bandwidth, limit: int) -> None:
        bandwidth.limit = limit
        for export in self._shared.exports.values():
            export.gate.update()

    def _wait(self) -> list[tuple[int, int]]:
        shared = self._shared
        if shared.going_on:
            return shared.epoll.poll(0)
        timers = shared.handshaking or self._epochs.watched or self._acceptor.paused
        timeout = _TICK if timers else None
        if shared.delayed:
            due = min(bandwidth.due for bandwidth in shared.delayed)
            timeout = min(_TICK, max(0.0, due - monotonic()))
        return self._waiter.wait(timeout)

    def _alone(self) -> None:
        """The only client is served without asking epoll each time: a request then costs one wait less."""
        (connection,) = self._shared.connections
        more = True
        while more and not self._stop and len(self._shared.connections) == 1:
            more = connection.serve_alone()
            self._turn(self._shared.epoll.poll(0))

    def _turn(self, events: list[tuple[int, int]]) -> None:
        """One turn of the loop: handle events, then what has waited for their end."""
        shared = self._shared
        for fd, mask in events:
            if handler := shared.handlers.get(fd):
                handler(mask)
        if shared.delayed:
            self._release_delayed()
        if shared.going_on:
            going_on, shared.going_on = shared.going_on, set()
            for connection in going_on:
                connection.resume()
        while shared.closed:
            shared.closed.pop().close()
        if shared.written:
            self._epochs.written(shared.written)
            shared.written.clear()
        if shared.handshaking or self._epochs.watched or self._acceptor.paused:
            self._tick()

    def _release_delayed(self) -> None:
        """Let go on what has got its bandwidth."""
        now = monotonic()
        for bandwidth in list(self._shared.delayed):
            bandwidth.release(now)
            if not bandwidth.lines:
                self._shared.delayed.discard(bandwidth)

    def _tick(self) -> None:
        """What is done now and then, while there is something to watch."""
        now = monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + _TICK
        self._acceptor.check(now)
        self._epochs.check()

    def _drain(self) -> None:
        """Answer what is under way, for as long as the clients take their replies."""
        self._acceptor.close()
        deadline = monotonic() + self._drain_timeout
        for export in self._shared.exports.values():
            self._limit(export.gate.bandwidth, 0)
        for connection in list(self._shared.connections):
            connection.finish()
        self._turn([])
        while self._shared.connections and monotonic() < deadline:
            self._turn(self._shared.epoll.poll(0 if self._shared.going_on else _TICK))

    def _close(self) -> None:
        self._acceptor.close()
        for connection in list(self._shared.connections):
            connection.drop("the server stops")
        self._turn([])
        self._workers.close()
        with self._ending:
            self._running = False
        self._workers.collect()  # what ended meanwhile, and what other threads asked for until now
        self._shared.epoll.close()

    def _flush_all(self) -> None:
        failures = []
        for disk in {export.disk for export in self._shared.exports.values() if export.writable}:
            try:
                disk.flush()
            except StorageError as error:
                failures.append(error)
        if failures:
            raise failures[0]
