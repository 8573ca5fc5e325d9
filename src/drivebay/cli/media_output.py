"""How media are shown: tables, trees and JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from rich.table import Table
from rich.tree import Tree

from drivebay.cli.output import as_json_value, plain, print_wide
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.registry.medium import Medium
    from drivebay.service.media_state import MediumInfo, UserInfo

_COLOURS = {"created": "green", "inaccessible": "red", "unknown": "dim"}


def medium_fields(medium: Medium) -> dict[str, object]:
    """A medium as JSON shows it."""
    fields: dict[str, object] = as_json_value(medium)
    return fields


def info_fields(info: MediumInfo) -> dict[str, object]:
    """A medium with all that is known of it, as JSON shows it."""
    return {
        **medium_fields(info.medium),
        "write_mode": info.write_mode,
        "state": info.condition.state,
        "reason": info.condition.reason,
        "file_size": info.file_size,
        "disk_usage": info.disk_usage,
        "files": [info.medium.path, *(info.condition.files.further if info.condition.files else ())],
        "used_by": list(info.users),
        "active": info.active,
        "children": list(info.children),
        "read_only": info.read_only,
        "resets": list(info.resets),
    }


def media_table(infos: Sequence[MediumInfo]) -> Table:
    """One line for each medium."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("medium", "UUID", "format", "type", "size", "on disk", "state", "used by"):
        table.add_column(name, overflow="fold")
    for info in infos:
        medium = info.medium
        table.add_row(
            plain(medium.path),
            str(medium.uuid),
            plain(medium.format),
            _type(info),
            format_size(medium.size),
            format_size(info.disk_usage),
            _state(info),
            plain(", ".join(user.name for user in info.users)),
        )
    return table


def media_trees(infos: Sequence[MediumInfo], label: Callable[[MediumInfo], str] | None = None) -> list[Tree]:
    """Each base with its diffs below it; an image whose parent isn't registered counts as a base.

    ``label`` gives an image's line in Rich's markup, as `medium_label`, which is the default.
    """
    by_uuid = {info.medium.uuid: info for info in infos}
    return [_tree(info, by_uuid, label or medium_label) for info in _roots(infos, by_uuid)]


def tree_fields(infos: Sequence[MediumInfo]) -> list[dict[str, object]]:
    """The trees as JSON shows them: each medium holds its children."""
    by_uuid = {info.medium.uuid: info for info in infos}

    def fields(info: MediumInfo) -> dict[str, object]:
        return {**info_fields(info), "children": [fields(by_uuid[child]) for child in info.children]}

    return [fields(info) for info in _roots(infos, by_uuid)]


def _roots(infos: Sequence[MediumInfo], by_uuid: Mapping[UUID, MediumInfo]) -> list[MediumInfo]:
    return [info for info in infos if info.medium.parent not in by_uuid]


def _tree(root: MediumInfo, by_uuid: Mapping[UUID, MediumInfo], label: Callable[[MediumInfo], str]) -> Tree:
    tree = Tree(label(root), guide_style="dim")
    waiting = [(tree, child) for child in root.children]
    while waiting:
        parent, uuid = waiting.pop(0)
        info = by_uuid[uuid]
        node = parent.add(label(info))
        waiting += [(node, child) for child in info.children]
    return tree


def medium_label(info: MediumInfo) -> str:
    """A medium in one line of a tree, in Rich's markup; * marks what a machine reads and writes now."""
    medium = info.medium
    mark = "[bold green]*[/] " if info.active else ""
    size = f"{format_size(info.disk_usage)} on disk"
    parts = [f"{mark}[bold]{plain(medium.path)}[/]", f"[dim]{medium.uuid}[/]", _type(info), size]
    parts += [f"used by {plain(', '.join(map(_user, info.users)))}"] if info.users else []
    parts += [f"[yellow]read-only[/] ({plain(info.read_only)})"] if info.read_only else []
    if medium.merging:
        parts.append("[yellow]waits to be merged[/]")
    if info.condition.state.value not in ("created", "unknown"):
        parts.append(_state(info))
    parts += [f"next start: {plain(_reset(reset.will_reset, reset.because))}" for reset in info.resets]
    return "  ".join(parts)


def short_label(info: MediumInfo) -> str:
    """As `medium_label`, for a narrow tree: the file's name, type, size on disk, and whose state it keeps."""
    mark = "[bold green]*[/] " if info.active else ""
    name = plain(os.path.basename(info.medium.path))
    kept = sorted({name for user in info.users for name in user.snapshots})
    holds = f"  [dim]snapshot {plain(', '.join(kept))}[/]" if kept and not info.active else ""
    return f"{mark}[bold]{name}[/]  {_type(info)}  {format_size(info.disk_usage)}{holds}"


def _user(user: UserInfo) -> str:
    kept = f"snapshot {', '.join(user.snapshots)}" if user.snapshots else ""
    return (
        f"{user.name} ({kept})" if kept and not user.current else f"{user.name}{f' and {kept}' * bool(kept)}"
    )


def _type(info: MediumInfo) -> str:
    if info.medium.parent is None:
        return info.medium.type.value
    mode = f" of {info.write_mode.value}" if info.write_mode else ""
    return f"diff{mode}{', auto-reset' if info.medium.auto_reset else ''}"


def _state(info: MediumInfo) -> str:
    state = info.condition.state.value
    reason = f": {plain(info.condition.reason)}" if info.condition.reason else ""
    return f"[{_COLOURS.get(state, 'yellow')}]{state}[/]{reason}"


def _reset(will: bool, because: str) -> str:
    return f"{'will be' if will else 'will not be'} reset, because {because}"


def show_medium(info: MediumInfo) -> None:
    """All that is known of one medium."""
    medium = info.medium
    files = info.condition.files
    rows: dict[str, object] = {
        "medium": medium.path,
        "further files": "\n".join(files.further) if files else "",
        "UUID": medium.uuid,
        "parent UUID": medium.parent or "base",
        "device": medium.device.value,
        "format": f"{medium.format}, {medium.variant}",
        "size": f"{format_size(medium.size)} ({medium.size} bytes)",
        "file size": f"{format_size(info.file_size)}, {format_size(info.disk_usage)} of them on disk",
        "used by": "\n".join(map(_user, info.users)),
        "children": "\n".join(map(str, info.children)),
        "read-only": info.read_only,
        "next start": "\n".join(
            f"{one.machine}: {_reset(one.will_reset, one.because)}" for one in info.resets
        ),
        "description": medium.description,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("[bold]type[/]", _type(info))
    table.add_row("[bold]state[/]", _state(info))
    for name, value in rows.items():
        if value not in (None, ""):
            table.add_row(f"[bold]{name}[/]", plain(value))
    print_wide(table)
