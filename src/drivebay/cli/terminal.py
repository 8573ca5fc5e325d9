"""The terminal as a guest's serial console."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from drivebay.errors import from_os_error

_LEAVE = b"\x1d"  # Ctrl-]
_CHUNK = 1 << 12


def connect_terminal(path: str) -> None:
    """Pass bytes both ways until the machine ends, or the user leaves; a pipe's end doesn't end it."""
    try:
        with socket.socket(socket.AF_UNIX) as line, _raw_terminal() as inputs:
            line.connect(path)
            with suppress(ConnectionError):  # the machine has ended
                _pass_on(line, inputs)
    except OSError as error:
        raise from_os_error(error, "connect to the serial line", path=path) from error


def _pass_on(line: socket.socket, inputs: list[int]) -> None:
    while True:
        ready, _, _ = select.select([line.fileno(), *inputs], [], [])
        if line.fileno() in ready:
            data = line.recv(_CHUNK)
            if not data:
                return
            os.write(1, data)
        if inputs and inputs[0] in ready:
            typed = os.read(inputs[0], _CHUNK)
            before, leave, _ = typed.partition(_LEAVE)
            if before:
                line.sendall(before)
            if leave:
                return
            if not typed:
                inputs.clear()


@contextmanager
def _raw_terminal() -> Iterator[list[int]]:
    """Keys go to the guest one by one, and it does the echoing."""
    number = sys.stdin.fileno()
    if not sys.stdin.isatty():
        yield [number]
        return
    before = termios.tcgetattr(number)
    try:
        tty.setraw(number)
        yield [number]
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
