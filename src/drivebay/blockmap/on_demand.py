"""Functions of a format that are imported when they are first called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any


def on_demand(module: str, function: str) -> Callable[..., Iterator[Any]]:
    """``function`` of ``module``, for what brings numpy: opening an image does without."""

    def call(*arguments: object) -> Iterator[Any]:
        found: Iterator[Any] = getattr(importlib.import_module(module), function)(*arguments)
        return found

    return call
