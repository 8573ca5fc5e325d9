"""The one table of exit codes; docs/guide/command-line.md shows it and a test holds the two equal."""

from __future__ import annotations

import signal

from drivebay.errors import MEANINGS, ErrorKind

OK = 0
ANSWER_IS_NO = 1
INTERNAL = 70  # EX_SOFTWARE of sysexits.h
SIGNALLED = 128  # plus the signal's number, as a shell shows it
INTERRUPTED = SIGNALLED + signal.SIGINT
PIPE_CLOSED = SIGNALLED + signal.SIGPIPE
TERMINATED = SIGNALLED + signal.SIGTERM

_NO = "an answer: the disks differ, check found an error, or repair has something to do"
_KINDS = {
    ErrorKind.INVALID: "wrong use: options, sizes, or a file that cannot be an image",
    ErrorKind.IO: "the host failed to read or write",
    ErrorKind.NOT_FOUND: "a file, a parent or a program is not there",
    ErrorKind.CORRUPT: "the image is damaged",
    ErrorKind.UNSUPPORTED: "drivebay or the host cannot do this",
    ErrorKind.IN_USE: "somebody else uses the image or the address",
    ErrorKind.READ_ONLY: "no permission, not writable, or a file outside of the image's folder",
    ErrorKind.NO_SPACE: "no space left on the host",
    ErrorKind.RANGE: "outside of the disk",
    ErrorKind.STATE: "things do not fit: a stale parent, several candidates, a lossy repair, a failed demo",
}


def exit_codes() -> dict[int, str]:
    """Every code with its meaning, in order."""
    table = {OK: "done", ANSWER_IS_NO: _NO}
    table |= {MEANINGS[kind].exit_code: meaning for kind, meaning in _KINDS.items()}
    table |= {INTERNAL: "internal error: please report it"}
    table |= {INTERRUPTED: "interrupted (Ctrl-C)", PIPE_CLOSED: "the output's reader has gone"}
    table |= {TERMINATED: "terminated (SIGTERM)"}
    return dict(sorted(table.items()))
