"""Files of saved states: a header that says what the state belongs to, then QEMU's own stream."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from drivebay.errors import ErrorKind, StorageError, from_os_error

_HEADER = 256 << 10  # room for a few thousand disks
_MAGIC = "drivebay saved state"
_VERSION = 1
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class StateHeader:
    """What a resume needs to know. ``disks`` has for each slot the image and what tells its content."""

    machine_type: str
    accelerator: str
    qemu: str
    disks: dict[str, list[object]] = field(default_factory=dict)


def state_name(now: datetime | None = None) -> str:
    """The name of a new state's file (specification, 2.8)."""
    now = now or datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H-%M-%S}-{now.microsecond * 1000:09d}Z.sav"


def write_header(path: str, header: StateHeader) -> None:
    """Write a state's header into its file, durably; the stream stays."""
    text = json.dumps({"file": _MAGIC, "version": _VERSION, **asdict(header)}).encode()
    if len(text) >= _HEADER:
        raise _invalid(path, "the machine has too many disks for it")
    try:
        with open(path, "r+b") as file:
            file.write(text.ljust(_HEADER - 1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise from_os_error(error, "save the machine's state", path=path) from error


def read_header(path: str) -> StateHeader:
    """A state's header. Raises StorageError: NOT_FOUND, CORRUPT, STATE for one of a newer drivebay."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(_HEADER))
        if value.pop("file") != _MAGIC:
            raise ValueError("it is something else")
        version = value.pop("version")
        if version != _VERSION:
            raise StorageError(
                ErrorKind.STATE, "a newer drivebay saved this state; update drivebay", path=path
            )
        header = StateHeader(**value)
        if not all(isinstance(each, list) for each in dict(header.disks).values()):
            raise ValueError("its list of disks is none")
        return header
    except FileNotFoundError as error:
        raise _invalid(path, "the saved state is gone") from error
    except OSError as error:
        raise from_os_error(error, "read the saved state", path=path) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _invalid(path, f"this is no saved state ({error})") from error


class Copier:
    """A thread that copies between a pipe and a state's file, so that QEMU needs only a pipe."""

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._copy, name="saved-state", daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        try:
            while os.splice(self._source, self._target, _PIECE):
                pass
        except OSError as error:
            self._error = error
        finally:
            os.close(self._source)
            os.close(self._target)

    def join(self) -> None:
        """Wait until all is copied. Raises OSError."""
        self._thread.join()
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def writing(path: str) -> Iterator[tuple[int, Copier]]:
    """A pipe whose content becomes the stream of a new state's file, durably; it goes if the block fails."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.lseek(file, _HEADER, os.SEEK_SET)
        reader, writer = os.pipe()
    except OSError as error:
        raise from_os_error(error, "save the machine's state", path=path) from error
    copier = Copier(reader, file)
    try:
        yield writer, copier
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        raise


def reading(path: str) -> int:
    """The reading end of a pipe that a thread fills with a state's stream; the caller closes it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise from_os_error(error, "read the saved state", path=path) from error
    os.lseek(file, _HEADER, os.SEEK_SET)
    reader, writer = os.pipe()
    Copier(file, writer)
    return reader


def _invalid(path: str, what: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"{what}; drivebay machine discard lets the machine start afresh",
        path=path,
        operation="saved state",
    )
