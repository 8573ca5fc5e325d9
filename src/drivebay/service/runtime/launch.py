"""Starting a supervisor: a process in a session of its own, which goes on after the command has returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.registry.home import Home
from drivebay.service.worker.messages import decode, error_from_json

LOG_FILE = "supervisor.log"


def launch(home: Home, machine: UUID, options: Mapping[str, Any]) -> dict[str, Any]:
    """Start the supervisor of ``machine`` and wait until the machine runs; what it reports.

    Raises the supervisor's StorageError where it can't: then nothing is left running.
    """
    log_path = os.path.join(home.run_folder(machine), LOG_FILE)
    command = [sys.executable, "-m", "drivebay.service.runtime", home.folder, str(machine)]
    try:
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                [*command, json.dumps(dict(options))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
    except OSError as error:
        raise from_os_error(error, "start the machine", path=log_path) from error
    assert process.stdout is not None
    with process.stdout as pipe:
        report = pipe.readline()
    process.wait()  # it has gone on in a child of its own
    if not report:
        raise StorageError(
            ErrorKind.STATE,
            "the machine's supervisor ended before the machine ran; its log tells why",
            path=log_path,
            operation="start the machine",
        )
    answer = decode(report)
    if "error" in answer:
        raise error_from_json(answer["error"])
    result: dict[str, Any] = answer["ok"]
    return result
