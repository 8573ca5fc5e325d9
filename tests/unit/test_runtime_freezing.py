"""The guest's file systems are thawed again, whatever becomes of the agent, the client, the supervisor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu.arguments import AGENT_SOCKET
from drivebay.service.runtime import agent, freezing
from drivebay.service.runtime.freezing import Freezing


class Agent:
    """An agent that notes what it is asked; ``answers`` is what it says to that, None nothing at all."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, object] = {"freeze": {"return": 2}, "thaw": {"return": 2}}
        self.syncs = True
        self._path = str(folder / AGENT_SOCKET)
        self._serving: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def on_its_line(self) -> AsyncIterator[None]:
        async with await asyncio.start_unix_server(self._begin, self._path):
            yield
        for writer, task in self._serving.items():
            writer.close()
            await task
            await writer.wait_closed()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving[writer] = asyncio.ensure_future(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            if message["execute"] == "guest-sync":
                if self.syncs:
                    self._say(writer, {"return": message["arguments"]["id"]})
                continue
            command = message["execute"].removeprefix("guest-fsfreeze-")
            self.asked.append(command)
            if self.answers[command] is not None:
                self._say(writer, self.answers[command])

    @staticmethod
    def _say(writer: asyncio.StreamWriter, what: object) -> None:
        writer.write(what if isinstance(what, bytes) else json.dumps(what).encode() + b"\n")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_SYNC_TIMEOUT", 0.2)
    monkeypatch.setattr(agent, "_ANSWER_TIMEOUT", 0.2)
    monkeypatch.setattr(freezing, "_AGAIN", 0.01)


Story = Callable[[Agent, Freezing], Awaitable[None]]


def tell(folder: Path, story: Story) -> Agent:
    """Run ``story`` with an agent and what freezes through it; at its end nothing is left to be thawed."""

    async def run() -> Agent:
        one = Agent(folder)
        async with one.on_its_line():
            await story(one, Freezing(str(folder)))
            await until(lambda: not (folder / "frozen").exists())
        return one

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_frozen_and_thawed(tmp_path: Path) -> None:
    async def story(_: Agent, guest: Freezing) -> None:
        assert await guest.freeze(1) == 2
        assert (tmp_path / "frozen").exists()
        with pytest.raises(StorageError, match="somebody else") as caught:
            await guest.freeze(2)
        assert caught.value.kind is ErrorKind.IN_USE
        assert await guest.thaw() == 2
        guest.client_gone(1)
        assert await guest.freeze(2) == 2
        assert await guest.thaw() == 2

    assert tell(tmp_path, story).asked == ["freeze", "thaw", "freeze", "thaw"]


def test_an_agent_that_was_not_reached_has_nothing_to_thaw(tmp_path: Path) -> None:
    async def story(one: Agent, guest: Freezing) -> None:
        one.syncs = False
        with pytest.raises(StorageError, match="does not answer") as caught:
            await guest.freeze(1)
        assert caught.value.kind is ErrorKind.UNSUPPORTED
        assert not (tmp_path / "frozen").exists()

    assert tell(tmp_path, story).asked == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "not answered within"),
        ({"error": {"class": "GenericError", "desc": "a hook failed"}}, "a hook failed"),
        ({"error": "what"}, "hung up"),
        ([1], "hung up"),
        (b"x" * (1 << 17) + b"\n", "limit"),
        (b"[" * 5000 + b"\n", "hung up"),
    ],
)
def test_an_agent_that_may_have_frozen_is_made_to_thaw(tmp_path: Path, answer: object, reason: str) -> None:
    async def story(one: Agent, guest: Freezing) -> None:
        one.answers["freeze"] = answer
        with pytest.raises(StorageError, match=reason) as caught:
            await guest.freeze(1)
        assert caught.value.kind is ErrorKind.STATE

    assert tell(tmp_path, story).asked == ["freeze", "thaw"]


def test_thawing_is_tried_until_it_is_done(tmp_path: Path) -> None:
    async def story(one: Agent, guest: Freezing) -> None:
        await guest.freeze(1)
        one.answers["thaw"] = {"error": {"desc": "not now"}}
        with pytest.raises(StorageError, match="not now"):
            await guest.thaw()
        await until(lambda: one.asked.count("thaw") > 3)
        with pytest.raises(StorageError, match="somebody else"):
            await guest.freeze(2)
        one.answers["thaw"] = {"return": 2}

    assert tell(tmp_path, story).asked[0] == "freeze"


def test_a_client_that_goes_away_leaves_nothing_frozen(tmp_path: Path) -> None:
    async def story(_: Agent, guest: Freezing) -> None:
        await guest.freeze(7)
        guest.client_gone(8)
        assert (tmp_path / "frozen").exists()
        guest.client_gone(7)

    assert tell(tmp_path, story).asked == ["freeze", "thaw"]


def test_the_next_supervisor_thaws(tmp_path: Path) -> None:
    async def story(_: Agent, guest: Freezing) -> None:
        await guest.freeze(1)
        Freezing(str(tmp_path)).take_over()

    assert tell(tmp_path, story).asked == ["freeze", "thaw"]


def test_a_machine_that_is_off_is_not_thawed(tmp_path: Path) -> None:
    async def story(one: Agent, guest: Freezing) -> None:
        await guest.freeze(1)
        one.answers["thaw"] = None
        guest.client_gone(1)
        await guest.close()
        Freezing(str(tmp_path)).take_over()
        await asyncio.sleep(0.1)

    assert tell(tmp_path, story).asked == ["freeze"]


def test_thawing_is_given_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezing, "_PATIENCE", 0.5)

    async def story(one: Agent, guest: Freezing) -> None:
        await guest.freeze(1)
        one.syncs = False
        guest.client_gone(1)

    assert tell(tmp_path, story).asked == ["freeze"]
