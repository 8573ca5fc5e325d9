"""The closed vocabulary in which a format describes an image; the engine executes it.

Records are frozen, hold no code, and name no format. A field that only one format would use is not
added here: it becomes a named strategy in the engine.
"""

from drivebay.blockmap.entry import BlockState, Entry, Rule
from drivebay.blockmap.format import (
    CreateRequest,
    FileChange,
    FileExtent,
    Files,
    FileWrite,
    Format,
    FormatOptions,
    Match,
    ParentLink,
)
from drivebay.blockmap.layer import Layer, Linear, Segment, Table, Zeros
from drivebay.blockmap.plan import Allocator, Field, Journal, Mark, MarkKind, WritePlan

__all__ = [
    "Allocator",
    "BlockState",
    "CreateRequest",
    "Entry",
    "Field",
    "FileChange",
    "FileExtent",
    "FileWrite",
    "Files",
    "Format",
    "FormatOptions",
    "Journal",
    "Layer",
    "Linear",
    "Mark",
    "MarkKind",
    "Match",
    "ParentLink",
    "Rule",
    "Segment",
    "Table",
    "WritePlan",
    "Zeros",
]
