"""Signals that the kernel gives to a thread of its choice."""

from __future__ import annotations

import ctypes
import os


def signal_another_thread(pid: int, number: int) -> None:
    """Send a signal to a process so that a thread gets it that is not the main one."""
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    assert max(threads) != pid
    assert ctypes.CDLL(None).tgkill(pid, max(threads), number) == 0
