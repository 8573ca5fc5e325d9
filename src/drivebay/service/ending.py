"""How a process is told to end, whatever its threads do meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal


class Ending:
    """Comes with one of ``signals``, or `begin`; the main thread makes it, and waits for it.

    A signal that comes while the main thread is about to wait for a lock, or that the kernel gives to
    another thread, wakes nobody: Python looks for signals before the wait, and after it. So its bytes are
    waited for, which the interpreter writes in whatever thread a signal finds.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)

    def begin(self) -> None:
        """End; in any thread, and as often as wanted."""
        with contextlib.suppress(BlockingIOError):  # it has been told so often enough
            os.write(self._write, b"\0")

    def wait(self) -> None:
        """Return when the process shall end."""
        os.read(self._read, 1)
