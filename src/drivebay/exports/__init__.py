"""Exports: disks offered to other programs, one package for each protocol."""

from drivebay.exports.export import Export
from drivebay.exports.nbd.server import NbdServer
from drivebay.exports.nbd.shared import ServerStats

__all__ = ["Export", "NbdServer", "ServerStats"]
