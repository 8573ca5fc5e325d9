"""The closed vocabulary in which a format describes an image; the engine executes it.

Records are frozen, hold no code, and name no format. A field that only one format would use is not
added here: it becomes a named strategy in the engine.
"""

from drivebay.blockmap.entry import BlockState, Entry, Rule
from drivebay.blockmap.filechange import FileChange, FileCopy, FileEdit, FileExtent, FileReplace, FileWrite
from drivebay.blockmap.format import (
    CreateRequest,
    Files,
    Format,
    FormatOptions,
    HeaderEdit,
    Match,
    ParentLink,
    RepairStep,
)
from drivebay.blockmap.layer import Directory, Layer, Linear, Packed, Segment, Table, Zeros
from drivebay.blockmap.on_demand import on_demand
from drivebay.blockmap.packed import Codec, PackedEntry, PackedRun
from drivebay.blockmap.plan import (
    Allocator,
    Field,
    Journal,
    LogPlace,
    Mark,
    MarkKind,
    Refcounts,
    WritePlan,
)
from drivebay.blockmap.presence import Presence, PresencePlace

__all__ = [
    "Allocator",
    "BlockState",
    "Codec",
    "CreateRequest",
    "Directory",
    "Entry",
    "Field",
    "FileChange",
    "FileCopy",
    "FileEdit",
    "FileExtent",
    "FileReplace",
    "FileWrite",
    "Files",
    "Format",
    "FormatOptions",
    "HeaderEdit",
    "Journal",
    "Layer",
    "Linear",
    "LogPlace",
    "Mark",
    "MarkKind",
    "Match",
    "Packed",
    "PackedEntry",
    "PackedRun",
    "ParentLink",
    "Presence",
    "PresencePlace",
    "Refcounts",
    "RepairStep",
    "Rule",
    "Segment",
    "Table",
    "WritePlan",
    "Zeros",
    "on_demand",
]
