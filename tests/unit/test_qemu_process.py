"""Running QEMU: lines, time-outs, failures, and that nothing is left behind (a shell stands in for QEMU)."""

import os
import time
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu.process import run


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_lines_come_one_by_one_without_their_ends() -> None:
    seen: list[str] = []
    output = run(shell(r"printf 'a\r\nb\n'; printf '\377'"), timeout=30, on_line=seen.append)
    assert output.lines == ("a", "b", "\N{REPLACEMENT CHARACTER}")
    assert seen == list(output.lines)


def test_a_line_is_passed_on_while_the_program_still_runs(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    output = run(
        shell(f"echo go; while [ ! -e {flag} ]; do sleep 0.01; done; echo gone"),
        timeout=30,
        on_line=lambda _: flag.touch(),
    )
    assert output.lines == ("go", "gone")


def test_an_endless_line_comes_in_pieces() -> None:
    output = run(shell("head -c 200000 /dev/zero | tr '\\0' x"), timeout=30)
    assert sum(map(len, output.lines)) == 200_000
    assert max(map(len, output.lines)) < 200_000


def test_a_time_out_stops_it_and_shows_the_last_lines() -> None:
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"still running after 1 s[^~]*last words") as caught:
        run(shell("echo last words; exec sleep 60"), timeout=1)
    assert caught.value.kind is ErrorKind.IO
    assert time.monotonic() - started < 30


def test_a_program_that_closes_its_output_but_stays_is_stopped() -> None:
    with pytest.raises(StorageError, match="still running after 1 s"):
        run(shell("exec sleep 60 >&-"), timeout=1)


def test_a_failure_shows_the_programs_own_words() -> None:
    with pytest.raises(StorageError, match=r"exit code 3: no such disk") as caught:
        run(shell("echo no such disk >&2; exit 3"), timeout=30)
    assert caught.value.kind is ErrorKind.IO


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be started") as caught:
        run([str(tmp_path / "none")], timeout=30)
    assert caught.value.path == str(tmp_path / "none")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_the_callback_raises_stops_the_program(error: type[BaseException]) -> None:
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.append(int(line))
        raise error

    with pytest.raises(error):
        run(shell("echo $$; exec sleep 60"), timeout=30, on_line=stop)
    assert gone(pids[0])
