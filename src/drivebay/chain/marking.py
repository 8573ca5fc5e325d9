"""How an image says, while its blocks are moved between it and a neighbour, that its content changed.

An image's content, for its children, is what it shows together with its parents. Moving blocks changes
nothing of that for the upper of two neighbours, so its children must not take it for changed; the lower one
shows something else from the first block on, but says so once only.
"""

from __future__ import annotations

import dataclasses
import uuid

from drivebay.blockmap import Mark, MarkKind, WritePlan
from drivebay.engine.source import OpenedLayer


def unchanged(opened: OpenedLayer) -> OpenedLayer:
    """The layer, to be written without saying that its content changed."""
    plan = opened.layer.plan
    if plan is None:
        return opened
    marks = tuple(mark for mark in plan.marks if mark.kind is MarkKind.FIXED)
    log = plan.log and dataclasses.replace(plan.log, same_data=True)
    return _with(opened, dataclasses.replace(plan, marks=marks, log=log))


def changed_once(opened: OpenedLayer) -> OpenedLayer:
    """The layer, to be written so that it says that its content changed, before the first write only."""
    plan = opened.layer.plan
    if plan is None:
        return opened
    return _with(opened, dataclasses.replace(plan, marks=tuple(map(_once, plan.marks))))


def _once(mark: Mark) -> Mark:
    if mark.kind is not MarkKind.RANDOM_UUID:
        return mark
    return dataclasses.replace(mark, kind=MarkKind.FIXED, opened=uuid.uuid4().bytes_le)


def _with(opened: OpenedLayer, plan: WritePlan) -> OpenedLayer:
    return dataclasses.replace(opened, layer=dataclasses.replace(opened.layer, plan=plan))
