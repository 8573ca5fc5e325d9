"""Commands whose process is killed somewhere in the middle."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

import drivebay.service.diffs as diffs
from drivebay.errors import StorageError
from drivebay.registry import journal

_KILLED = 99
_REFUSED = 3


def dies_at(step: int, command: Callable[[], object]) -> bool:
    """Run ``command`` in a process of its own that ends at once when it comes to its ``step``-th moment.

    Moments are before and after each new image, each commit of the registry and each effect on a file.
    Returns whether it was killed; a refusal (StorageError) is none.
    """
    child = os.fork()
    if child == 0:
        try:
            _count_down(step)
            command()
            os._exit(0)
        except StorageError:
            os._exit(_REFUSED)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _KILLED, _REFUSED)
    return status == _KILLED


def _count_down(step: int) -> None:
    left = [step]

    def moment(*_: Any) -> None:
        if left[0] == 0:
            os._exit(_KILLED)
        left[0] -= 1

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            moment()
            result = function(*arguments, **named)
            moment()
            return result

        return wrapped

    diffs.create_image = around(diffs.create_image)  # type: ignore[attr-defined]
    journal.perform = around(journal.perform)
    event.listen(Engine, "commit", moment)
