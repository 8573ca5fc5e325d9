"""The worker: the process that opens the disks of one running machine and serves them.

`start_worker` starts one, `WorkerClient` speaks to it; docs/internals/worker.md has the protocol.
"""

from drivebay.service.worker.client import WorkerClient, rates
from drivebay.service.worker.process import WorkerProcess, start_worker
from drivebay.service.worker.spec import CONTROL_SOCKET, NBD_SOCKET, DiskSpec

__all__ = [
    "CONTROL_SOCKET",
    "NBD_SOCKET",
    "DiskSpec",
    "WorkerClient",
    "WorkerProcess",
    "rates",
    "start_worker",
]
