"""What each format can do, and the options of its new images, by introspection."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivebay import formats
from drivebay.blockmap import Format
from drivebay.errors import ErrorKind, StorageError
from drivebay.service.sizes import parse_size

_YES = {"yes", "true", "on", "1"}
_NO = {"no", "false", "off", "0"}
_SHARED_HELP = {"variant": "Kind of image.", "block_size": "Unit of allocation."}


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """An option of `create`; ``kind`` is "yes or no", "number or size", "text" or "choice"."""

    name: str
    kind: str
    default: object
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class FormatInfo:
    """A format, what drivebay does with it, and the ``variants`` (default first) of its new images."""

    name: str
    extensions: tuple[str, ...]
    create: bool
    check: bool
    repair: bool
    edit: bool
    variants: tuple[str, ...]
    options: tuple[OptionInfo, ...]


def list_formats() -> Sequence[FormatInfo]:
    """All formats that drivebay knows."""
    return [_describe(known) for known in formats.FORMATS]


def format_info(name: str) -> FormatInfo:
    """The format called ``name``. Raises StorageError (INVALID) that lists the known ones."""
    return _describe(formats.format_named(name))


def _describe(known: Format) -> FormatInfo:
    return FormatInfo(
        known.name,
        known.extensions,
        create=known.create is not None,
        check=known.check is not None,
        repair=known.repair is not None,
        edit=known.edit is not None,
        variants=known.variants,
        options=_options(known) if known.create else (),
    )


def _options(known: Format) -> tuple[OptionInfo, ...]:
    hints = _types(known)
    return tuple(_option(field, hints[field.name], known) for field in dataclasses.fields(known.options))


def _option(field: dataclasses.Field[Any], kind: type, known: Format) -> OptionInfo:
    choices = tuple(str(member.value) for member in kind) if issubclass(kind, enum.Enum) else ()
    default = field.default
    if field.name == "variant":
        choices = known.variants
        default = known.variants[0] if known.variants else None
    text = field.metadata.get("help") or _SHARED_HELP.get(field.name, "")
    default = default.value if isinstance(default, enum.Enum) else default
    return OptionInfo(field.name, "choice" if choices else _KINDS[kind], default, choices, text)


def _types(known: Format) -> dict[str, type]:
    """The type of each option; ``X | None`` counts as X."""
    hints = typing.get_type_hints(known.options)
    return {name: _without_none(hint) for name, hint in hints.items()}


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    found: type = hint
    return found


def read_options(known: Format, given: Mapping[str, object]) -> dict[str, object]:
    """The options as the format takes them; values may be text. Raises StorageError (INVALID)."""
    hints = _types(known)
    read: dict[str, object] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in hints:
            raise _invalid(
                f"{known.name} images have no option {key[:60]!r}; they have: {', '.join(sorted(hints))}"
            )
        if value is not None:
            read[name] = _read(name, value, hints[name])
    return read


def _read(name: str, value: object, kind: type) -> object:
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    if issubclass(kind, enum.Enum):
        return _choice(name, value, kind)
    return _READERS[kind](name, value)


def _choice(name: str, value: object, kind: type[enum.Enum]) -> enum.Enum:
    known = {str(member.value): member for member in kind}
    if str(value) not in known:
        raise _invalid(f"the option {name} can't be {str(value)[:60]!r}; choose one of: {', '.join(known)}")
    return known[str(value)]


def _truth(name: str, value: object) -> bool:
    text = str(value).lower()
    if text not in _YES | _NO:
        raise _invalid(f"the option {name} can't be {text[:60]!r}; say yes or no")
    return text in _YES


def _number(_name: str, value: object) -> int:
    return 0 if str(value).strip() == "0" else parse_size(str(value))


def _text(_name: str, value: object) -> str:
    return str(value)


_KINDS: dict[type, str] = {bool: "yes or no", int: "number or size", str: "text"}
_READERS: dict[type, Any] = {bool: _truth, int: _number, str: _text}


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="create")
