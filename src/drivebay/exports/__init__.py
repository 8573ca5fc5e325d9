"""Exports: disks offered to other programs, one package for each protocol."""

from drivebay.exports.bandwidth import Bandwidth
from drivebay.exports.export import Export
from drivebay.exports.gate import Gate
from drivebay.exports.nbd.server import NbdServer
from drivebay.exports.nbd.shared import ServerStats

__all__ = ["Bandwidth", "Export", "Gate", "NbdServer", "ServerStats"]
