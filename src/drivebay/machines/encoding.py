"""Frozen values to JSON and back, by the types of their fields.

A dataclass is an object with all its fields, a tuple an array; enums, UUIDs, slots and moments are text.
What is read is checked: its text may come from anywhere.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from datetime import datetime
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Slot

T = TypeVar("T")
_KEYS = ("uuid", "slot", "name")  # what tells the objects of one array apart


def encode(value: object) -> Any:
    """``value`` as JSON's types."""
    if isinstance(value, (Slot, UUID)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [encode(one) for one in value] if isinstance(value, tuple) else value


def decode(kind: type[T], data: object, where: str = "") -> T:
    """The value of ``kind`` that ``data`` stands for; missing fields have their defaults.

    ``where`` is data's place in its document, for messages. Raises StorageError (CORRUPT).
    """
    value: T = _decode(kind, data, where)
    return value


def _decode(kind: Any, data: object, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and kind is not Slot:
        return _object(kind, data, where)
    if typing.get_origin(kind) is tuple:
        return _array(typing.get_args(kind)[0], data, where)
    if isinstance(kind, types.UnionType):
        return None if data is None else _decode(typing.get_args(kind)[0], data, where)
    if kind in (str, int, bool):
        return data if type(data) is kind else _wrong(where, data)
    return _from_text(kind, data, where)


def _object(kind: Any, data: object, where: str) -> Any:
    if not isinstance(data, dict):
        _wrong(where, data)
    types_of = _field_types(kind)
    given = {
        name: _decode(types_of[name], data[name], f"{where}.{name}".lstrip("."))
        for name in types_of
        if name in data
    }
    try:
        return kind(**given)
    except TypeError:
        missing = next(name for name in _required(kind) if name not in given)
        raise _damaged(f"{where or 'it'} has no {missing!r}") from None


def _required(kind: Any) -> list[str]:
    absent = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is absent and f.default_factory is absent]


@functools.cache
def _field_types(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _array(kind: Any, data: object, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        _wrong(where, data)
    return tuple(_decode(kind, one, f"{where}[{number}]") for number, one in enumerate(data))


def _from_text(kind: Any, data: object, where: str) -> Any:
    try:
        if not isinstance(data, str):
            raise ValueError
        if kind is Slot:
            return parse_slot(data)
        if kind is datetime:
            return _moment(data)
        return kind(data)
    except ValueError:
        return _wrong(where, data)


def parse_slot(text: str) -> Slot:
    """The slot that its text names. Raises ValueError."""
    controller, port, device = text.rsplit(":", 2)
    if not (controller and port.isdecimal() and device.isdecimal()):
        raise ValueError
    return Slot(controller, int(port), int(device))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _wrong(where: str, data: object) -> NoReturn:
    raise _damaged(f"{where or 'it'} can't be {str(data)[:60]!r}")


def _damaged(what: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"this is no sound machine file: {what}; mend the file, or take it from a backup",
        operation="read a machine file",
    )


def keep_unknown(new: Any, old: Any) -> Any:
    """``new`` with the keys of ``old`` that it hasn't: those of a newer drivebay, or of somebody else."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {**old, **{name: keep_unknown(value, old.get(name)) for name, value in new.items()}}
    if isinstance(new, list) and isinstance(old, list):
        known = {_key(one): one for one in old}
        return [keep_unknown(one, known.get(_key(one))) for one in new]
    return new


def _key(one: object) -> object:
    if not isinstance(one, dict):
        return None
    return next((str(one[name]) for name in _KEYS if name in one), None)
