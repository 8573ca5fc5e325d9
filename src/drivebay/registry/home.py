"""Where drivebay keeps what belongs to a user: the registry, machines, the trash, sockets."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError, from_os_error

HOME_VARIABLE = "DRIVEBAY_HOME"
_RUNTIME_VARIABLE = "XDG_RUNTIME_DIR"
_ID_LENGTH = 12  # a socket's path has at most 107 bytes (unix(7))


@dataclass(frozen=True, slots=True)
class Home:
    """A folder with a registry; ``folder`` is absolute and real."""

    folder: str

    @property
    def registry(self) -> str:
        """The SQLite file."""
        return os.path.join(self.folder, "registry.sqlite")

    @property
    def machines(self) -> str:
        """Where new machines get their folders, unless told otherwise."""
        return os.path.join(self.folder, "machines")

    @property
    def trash(self) -> str:
        """Where deleted media go, if they lie on the same file system."""
        return os.path.join(self.folder, "trash")

    @property
    def media_file(self) -> str:
        """A copy of what the registry knows of media, which `drivebay rebuild` reads."""
        return os.path.join(self.folder, "media.json")

    @property
    def processes(self) -> str:
        """Lock files of the processes that have this registry open."""
        return os.path.join(self.folder, "processes")

    @property
    def change_lock(self) -> str:
        """Locked by whoever changes the registry."""
        return os.path.join(self.folder, "registry.lock")

    def run_folder(self, machine: UUID) -> str:
        """The folder of a machine's sockets: short, private (0700), made if it isn't there.

        Raises StorageError (STATE) where somebody else made a folder of this name.
        """
        place = _runtime_folder()
        name = hashlib.sha256(f"{self.folder}\0{machine}".encode("utf-8", "surrogateescape")).hexdigest()
        folder = os.path.join(place, name[:_ID_LENGTH])
        _make_private(folder)
        return folder


def find_home(folder: str | os.PathLike[str] | None = None) -> Home:
    """The home in ``folder``, else in $DRIVEBAY_HOME, else in the user's data folder. Makes nothing."""
    if folder is None or not os.fspath(folder):
        folder = os.environ.get(HOME_VARIABLE) or _user_folder()
    return Home(os.path.realpath(folder))


def _user_folder() -> str:
    from platformdirs import user_data_path

    return str(user_data_path("drivebay"))


def _runtime_folder() -> str:
    """A private folder that the host empties when it starts."""
    offered = os.environ.get(_RUNTIME_VARIABLE, "")
    if os.path.isdir(offered) and os.access(offered, os.W_OK | os.X_OK):
        folder = os.path.join(offered, "drivebay")
    else:
        folder = os.path.join(tempfile.gettempdir(), f"drivebay-{os.getuid()}")
    _make_private(folder)
    return folder


def _make_private(folder: str) -> None:
    """In a folder that all may write to, somebody else may have been there first."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.lstat(folder)
    except OSError as error:
        raise from_os_error(error, "make a folder for sockets", path=folder) from error
    private = stat.S_ISDIR(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
    if status.st_uid != os.getuid() or not private:
        raise StorageError(
            ErrorKind.STATE,
            "this folder for sockets is not this user's alone; remove it (or make it 0700), "
            f"or set {_RUNTIME_VARIABLE} to a private folder",
            path=folder,
            operation="make a folder for sockets",
        )
