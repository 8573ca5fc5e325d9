"""A running machine: the supervisor process that keeps its worker and QEMU, and how to speak to it.

`start` starts a machine, `connect` reaches one that runs. Docs: docs/internals/runtime.md.
"""

from drivebay.service.runtime.client import MachineClient, connect, is_running
from drivebay.service.runtime.start import StartOptions, start

__all__ = ["MachineClient", "StartOptions", "connect", "is_running", "start"]
