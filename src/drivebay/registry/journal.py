"""What happens to files around a change of the registry: what is done after the commit, and redone by
whoever comes next if the process dies before.

Everything here is idempotent. A file is told by its device and inode from one that took its name since,
so that redoing an old effect never hurts a new file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from drivebay.chain.apply import sync_folder
from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.registry.relinking import record_parent

INTENT = "intent"


@dataclass(frozen=True, slots=True)
class WriteFile:
    """The file at ``path`` holds ``text`` (UTF-8), wholly or not at all."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Remove:
    """These files are unlinked; folders go if they are empty. What is not there is no error."""

    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class Rename:
    """A file or folder gets another name on the same file system, which must be free."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Trash:
    """These files go to the trash, from where ``label`` names them and ``record`` tells how to undo it."""

    paths: Sequence[str]
    label: str
    record: str = ""


@dataclass(frozen=True, slots=True)
class Relink:
    """The header of the image ``child`` names ``parent``, which may have moved, as its parent."""

    child: str
    parent: str


Effect = WriteFile | Remove | Rename | Trash | Relink
Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the journal: one file, one thing to do. ``identities`` are those of the sources then."""

    kind: str
    path: str
    detail: str = ""
    identity: Identity | None = field(default=None)

    def payload(self) -> str:
        """The row's text."""
        return json.dumps({"detail": self.detail, "identity": self.identity})


def steps_of(effect: WriteFile | Remove | Rename | Relink) -> Iterator[Step]:
    """The rows for an effect; what it would do to files that aren't there is left out."""
    match effect:
        case WriteFile():
            yield Step("write", effect.path, effect.text)
        case Remove():
            for path in effect.paths:
                if identity := _identity(path):
                    yield Step("remove", path, identity=identity)
        case Rename():
            if identity := _identity(effect.source):
                yield Step("rename", effect.source, effect.target, identity)
        case Relink():
            yield Step("relink", effect.child, effect.parent)


def read_step(kind: str, path: str, payload: str) -> Step:
    """The step of a row."""
    found = json.loads(payload)
    identity = found["identity"]
    return Step(kind, path, found["detail"], tuple(identity) if identity else None)


def perform(step: Step, *, durable: bool = True) -> None:
    """Do one step; whether it has been done before makes no difference. Raises StorageError."""
    try:
        _DO[step.kind](step, durable)
    except OSError as error:
        raise from_os_error(error, _VERBS[step.kind], path=step.path) from error


def _write(step: Step, durable: bool) -> None:
    folder, name = os.path.split(step.path)
    os.makedirs(folder, exist_ok=True)
    aside = os.path.join(folder, f".{name}.new")
    with open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(step.detail)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(aside, step.path)
    _sync(folder, durable)


def _remove(step: Step, durable: bool) -> None:
    if _identity(step.path) != step.identity:
        return
    if os.path.isdir(step.path) and not os.path.islink(step.path):
        remove_folder(step.path)
    else:
        os.unlink(step.path)
    _sync(os.path.dirname(step.path), durable)


def remove_folder(path: str) -> None:
    """Remove a folder if it is empty. Raises OSError."""
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def _rename(step: Step, durable: bool) -> None:
    if _identity(step.path) != step.identity:
        return
    folder = os.path.dirname(step.detail)
    os.makedirs(folder, exist_ok=True)
    if os.path.lexists(step.detail) and _identity(step.detail) != step.identity:
        raise StorageError(
            ErrorKind.STATE,
            f"it can't become {step.detail}, where there is another file by now; move that away",
            path=step.path,
            operation="rename",
        )
    os.rename(step.path, step.detail)
    for changed in {folder, os.path.dirname(step.path)}:
        _sync(changed, durable)


def _sync(folder: str, durable: bool) -> None:
    if durable:
        with contextlib.suppress(FileNotFoundError):
            sync_folder(folder)


def _identity(path: str) -> Identity | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _relink(step: Step, _durable: bool) -> None:
    record_parent(step.path, step.detail)


_DO = {"write": _write, "remove": _remove, "rename": _rename, "relink": _relink}
_VERBS = {"write": "write", "remove": "remove", "rename": "rename", "relink": "record the parent of"}
