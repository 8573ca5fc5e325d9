"""Starting a worker."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.service.worker.client import WorkerClient
from drivebay.service.worker.messages import decode, error_from_json
from drivebay.service.worker.spec import LOG_FILE, DiskSpec, spec_to_json

_STOP_TIMEOUT = 60.0  # seconds
_LONGEST_LOG = 1 << 20  # bytes: beyond, a new worker begins the log anew


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker that serves. It goes on when whoever started it ends."""

    process: subprocess.Popen[bytes]
    run_folder: str

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    def connect(self, *, timeout: float = 600) -> WorkerClient:
        """A control connection."""
        return WorkerClient.connect(self.run_folder, timeout=timeout)

    def poll(self) -> int | None:
        """The exit code; ``None`` while it runs."""
        return self.process.poll()

    def stop(self, timeout: float = _STOP_TIMEOUT) -> int:
        """Have it flush, close and end; the exit code. After ``timeout`` seconds it is killed."""
        self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start_worker(
    run_folder: str,
    specs: Sequence[DiskSpec],
    groups: Mapping[str, int] | None = None,
    *,
    timeout: float = 120,
) -> WorkerProcess:
    """Start the worker that serves ``specs`` from ``run_folder``, and wait until it does.

    ``groups`` are the bandwidth groups with their limits in bytes per second, 0 for none. The folder is
    made where it is missing; nobody but the owner may enter it. Raises the worker's StorageError where
    it can't serve: then no process is left.
    """
    run_folder = os.path.abspath(run_folder)
    process = _spawn(run_folder)
    task = {"disks": [spec_to_json(spec) for spec in specs], "groups": dict(groups or {})}
    try:
        with contextlib.suppress(BrokenPipeError):  # it ended already: its report says why
            _write_all(process, json.dumps(task).encode())
        _raise_failure(_report(process, run_folder, timeout), run_folder)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        _pipe(process.stdout).close()
    return WorkerProcess(process, run_folder)


def _spawn(run_folder: str) -> subprocess.Popen[bytes]:
    log = _open_log(run_folder)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "drivebay.service.worker", run_folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise from_os_error(error, "start the worker", path=sys.executable) from error
    finally:
        os.close(log)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # asked for above
    return stream


def _write_all(process: subprocess.Popen[bytes], data: bytes) -> None:
    with _pipe(process.stdin) as pipe:
        view = memoryview(data)
        while view:
            view = view[pipe.write(view) :]


def _report(process: subprocess.Popen[bytes], run_folder: str, timeout: float) -> bytes:
    """All that the worker says until it closes its output."""
    pipe = _pipe(process.stdout)
    deadline = time.monotonic() + timeout
    report = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            data = os.read(pipe.fileno(), 1 << 16)
            if not data:
                return report
            report += data
    raise _not_ready(run_folder, f"the worker was not ready within {timeout:.0f} s")


def _open_log(run_folder: str) -> int:
    path = os.path.join(run_folder, LOG_FILE)
    try:
        os.makedirs(run_folder, mode=0o700, exist_ok=True)
        os.chmod(run_folder, 0o700)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(log).st_size > _LONGEST_LOG:
            os.ftruncate(log, 0)
        return log
    except OSError as error:
        raise from_os_error(error, "start the worker", path=path) from error


def _raise_failure(report: bytes, run_folder: str) -> None:
    if not report:
        raise _not_ready(run_folder, "the worker ended before it was ready")
    answer = decode(report)
    if "error" in answer:
        raise error_from_json(answer["error"])


def _not_ready(run_folder: str, what: str) -> StorageError:
    path = os.path.join(run_folder, LOG_FILE)
    return StorageError(ErrorKind.IO, f"{what}; its log tells why", path=path, operation="start the worker")
