"""QEMU's monitor against a server that speaks QMP, well or badly."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu.monitor import Monitor, RefusedError

GREETING = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
}
Answer = Callable[[dict[str, Any]], list[dict[str, Any]] | None]


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="drivebay-") as folder:
        yield str(Path(folder, "qmp.sock"))


def talk(path: str, answer: Answer, work: Callable[[Monitor], Awaitable[None]]) -> None:
    """Run ``work`` on a monitor of a server that sends ``answer`` for each command; None hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: dict[str, Any]) -> None:
            writer.write(json.dumps(message).encode() + b"\r\n")

        send(GREETING)
        while line := await reader.read(1 << 16):  # a client sends no line ends
            message = json.loads(line)
            found = [{"return": {}}] if message["execute"] == "qmp_capabilities" else answer(message)
            if found is None:
                break
            for each in found:
                send(each if "event" in each else _to(message, each))
        writer.close()

    async def run() -> None:
        async with await asyncio.start_unix_server(serve, path):
            monitor = await Monitor.connect(path, timeout=10)
            try:
                async with asyncio.timeout(30):
                    await work(monitor)
            finally:
                await monitor.close()

    asyncio.run(run())


def _to(message: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, **{name: message[name] for name in ("id",) if name in message}}


def test_answers_events_and_refusals(path: str) -> None:
    def answer(message: dict[str, Any]) -> list[dict[str, Any]] | None:
        if message["execute"] == "bad":
            return [{"error": {"class": "GenericError", "desc": "No such thing."}}]
        stamp = {"seconds": 1, "microseconds": 2}
        return [{"event": "STOP", "timestamp": stamp}, {"return": message.get("arguments")}]

    async def work(monitor: Monitor) -> None:
        assert await monitor.execute("echo", {"a": 1}) == {"a": 1}
        async for event in monitor.events():
            assert event["event"] == "STOP"
            break
        with pytest.raises(RefusedError, match="QEMU refuses bad: No such thing;") as caught:
            await monitor.execute("bad")
        assert caught.value.kind is ErrorKind.STATE

    talk(path, answer, work)


def test_the_end_of_qemu_ends_commands_and_events(path: str) -> None:
    async def work(monitor: Monitor) -> None:
        following = asyncio.ensure_future(_events(monitor))
        with pytest.raises(StorageError, match="QEMU ended amid query-status"):
            await monitor.execute("query-status")
        assert await following == []
        with pytest.raises(StorageError, match="machine status"):
            await monitor.execute("query-status")

    talk(path, lambda _: None, work)


async def _events(monitor: Monitor) -> list[str]:
    return [event["event"] async for event in monitor.events()]


def test_a_monitor_that_is_not_there_is_given_up(path: str) -> None:
    with pytest.raises(StorageError, match="does not answer") as caught:
        asyncio.run(Monitor.connect(path, timeout=0.1))
    assert caught.value.path == path


def test_a_file_is_passed_before_its_name(path: str) -> None:
    """A server of bare sockets, which can receive it."""
    received: list[bytes] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            serving = loop.run_in_executor(None, _receive_file, listening, received)
            monitor = await Monitor.connect(path, timeout=10)
            reader, writer = os.pipe()
            await monitor.give_file("state", writer)
            os.close(writer)
            await serving
            received.append(os.read(reader, 100))
            os.close(reader)
            await monitor.close()

    asyncio.run(work())
    assert json.loads(received[0])["arguments"] == {"fdname": "state"}
    assert received[1] == b"through the pipe"


def _receive_file(listening: socket.socket, received: list[bytes]) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.sendall(json.dumps(GREETING).encode() + b"\r\n")
        connection.recv(4096)  # qmp_capabilities, which has no id
        connection.sendall(json.dumps({"return": {}}).encode() + b"\r\n")
        data, files = b"", []
        while not data.endswith(b"}"):
            more, new, _, _ = socket.recv_fds(connection, 4096, 1)
            data += more
            files += new
        received.append(data)
        os.write(files[0], b"through the pipe")
        os.close(files[0])
        connection.sendall(json.dumps({"return": {}, "id": json.loads(data)["id"]}).encode() + b"\r\n")
