"""The asking end of a control connection."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.runtime.client import MachineClient
from drivebay.service.worker import WorkerClient


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivebay.service.runtime.client._ANSWER_TIMEOUT", 0.05)
    ours, theirs = socket.socketpair()
    with theirs, MachineClient(ours, "/run/machine") as client:
        with pytest.raises(StorageError, match="does not answer") as caught:
            client.pause()
        assert (caught.value.kind, caught.value.path) == (ErrorKind.STATE, "/run/machine")
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more
            theirs.sendall(b'{"id": 1, "ok": {"state": "of the pause"}}\n')
        with pytest.raises(StorageError, match="does not answer"):
            client.status()


def test_an_answer_and_an_error_and_an_end() -> None:
    ours, theirs = socket.socketpair()
    with WorkerClient(ours, "/run/worker.sock", 5) as client:
        theirs.sendall(b'{"id": 1, "ok": {"exports": {"disk": {}}}}\n')
        assert client.status() == {"disk": {}}
        theirs.sendall(b'{"id": 2, "error": {"kind": "in-use", "message": "it is held"}}\n')
        with pytest.raises(StorageError, match="it is held") as caught:
            client.flush(["disk"])
        assert caught.value.kind is ErrorKind.IN_USE
        asked = [json.loads(line) for line in theirs.recv(4096).splitlines()]
        assert asked == [{"id": 1, "do": "status"}, {"id": 2, "do": "flush", "exports": ["disk"]}]
        theirs.close()
        with pytest.raises(StorageError, match="the worker"):
            client.status()
