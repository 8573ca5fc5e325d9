"""The engine: executes the descriptions of formats on batches of requests."""

from drivebay.engine.batch import Outcome
from drivebay.engine.direct import DirectSource
from drivebay.engine.disk import Disk
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.engine.stats import DiskStats

__all__ = ["DirectSource", "Disk", "DiskStats", "FileSource", "OpenedLayer", "Outcome"]
