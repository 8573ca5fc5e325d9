"""All that the headers, the region table and the metadata of an image say, read and checked."""

from __future__ import annotations

from typing import Final, NamedTuple

from drivebay.blockmap import Files
from drivebay.formats.vhdx import regions
from drivebay.formats.vhdx.header import MIB, Headers, read_headers
from drivebay.formats.vhdx.log import Stages, read_replay
from drivebay.formats.vhdx.metadata import Metadata, read_metadata
from drivebay.formats.vhdx.overlay import PatchedFiles
from drivebay.formats.vhdx.refusal import require
from drivebay.formats.vhdx.regions import Region, read_regions

ENTRY_SIZE: Final = 8


class ImageParts(NamedTuple):
    """What an image is made of; ``files`` shows the file as its log leaves it."""

    files: Files
    headers: Headers
    replay: Stages
    regions: tuple[Region, ...]
    bat: Region
    metadata_region: Region
    metadata: Metadata

    @property
    def first(self) -> int:
        """Where blocks may begin: behind the log and the regions that follow the header without a gap.

        Those that were moved away, to grow, lie between blocks.
        """
        header = self.headers.current
        log = (header.log_offset, header.log_offset + header.log_length)
        end = MIB
        for begin, stop in sorted([log, *((region.offset, region.end) for region in self.regions)]):
            if begin > end:
                break
            end = max(end, stop)
        return end


def read_parts(files: Files) -> ImageParts:
    """Read everything but the BAT. Raises StorageError; the rules are those of docs/formats/vhdx.md."""
    headers = read_headers(files)
    replay = read_replay(files, headers)
    view = PatchedFiles(files, [change for stage in replay for change in stage]) if replay else files
    found = read_regions(view, headers.current)
    bat, region = found[regions.BAT], found[regions.METADATA]
    metadata = read_metadata(view, region)
    require(
        metadata.bat_entries * ENTRY_SIZE <= bat.length,
        files,
        bat.offset,
        f"VHDX BAT: the disk needs {metadata.bat_entries} entries, but the region has room for "
        f"{bat.length // ENTRY_SIZE}",
    )
    return ImageParts(view, headers, replay, tuple(found.values()), bat, region, metadata)
