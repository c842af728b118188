"""A change-set: what one commit does to a session's items, and how to undo it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from holdfast.model.item import Item


class Before(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the state of an item before a change is to be found.

    The body itself is not copied: it stands in the log at step ``written``, which keeps the cost of an edit near
    the size of what it writes.
    """

    version: int
    written: int
    position: str


class Change(msgspec.Struct, frozen=True, array_like=True):
    """The net effect of a commit on one item.

    ``position`` is None for a delete; ``body`` is None for a delete and for a move; ``before`` is None for a new item.
    """

    key: str
    position: str | None
    bodies: tuple[msgspec.Raw, ...]  # one or none: msgspec does not read ``Raw | None``
    before: Before | None

    @property
    def body(self) -> msgspec.Raw | None:
        """The body written, as JSON."""
        return self.bodies[0] if self.bodies else None

    @property
    def verb(self) -> str:
        """``added``, ``changed``, ``moved`` or ``deleted``."""
        if self.position is None:
            return "deleted"
        if self.before is None:
            return "added"
        return "moved" if self.body is None else "changed"


ChangeSet = tuple[Change, ...]

Wanted = Mapping[str, "tuple[str, bytes] | None"]
"""The state wanted of each key: position and body, or None for no such item."""


class Conflict(msgspec.Struct, frozen=True):
    """One item that stands in the way of a commit: enough for a three-way merge. Bodies are None where there is no
    item.
    """

    key: str
    base: Any
    theirs: Any
    mine: Any


def net(items: Mapping[str, Item], wanted: Wanted) -> ChangeSet:
    """The changes that take ``items`` to what is wanted of some keys; what is so already is left out."""
    changes = []
    for key, target in wanted.items():
        item = items.get(key)
        before = None if item is None else Before(item.version, item.written, item.position)
        if target is None:
            if item is not None:
                changes.append(Change(key, None, (), before))
            continue
        position, raw = target
        if item is None or item.raw != raw:
            changes.append(Change(key, position, (msgspec.Raw(raw),), before))
        elif item.position != position:
            changes.append(Change(key, position, (), before))
    return tuple(changes)


def changed_item(change: Change, item: Item | None, version: int, step: int) -> Item | None:
    """The item as it stands after a change made by the commit of ``version``, at ``step`` of the log."""
    if change.position is None:
        return None
    if change.body is not None:
        return Item(change.key, change.position, bytes(change.body), version, step)
    if item is None:
        raise ValueError(f"a move of {change.key!r}, which is not there")
    return Item(change.key, change.position, item.raw, version, item.written)


def apply(items: dict[str, Item], changes: ChangeSet, version: int, step: int) -> None:
    """Apply a change-set in place."""
    for change in changes:
        item = changed_item(change, items.get(change.key), version, step)
        if item is None:
            items.pop(change.key, None)
        else:
            items[change.key] = item


def first_before(change_sets: Iterable[ChangeSet]) -> dict[str, Before | None]:
    """For each key touched by consecutive change-sets: where it stood before the first of them."""
    befores: dict[str, Before | None] = {}
    for changes in change_sets:
        for change in changes:
            befores.setdefault(change.key, change.before)
    return befores


def invert(
    befores: Mapping[str, Before | None], body: Callable[[str, int], bytes]
) -> dict[str, tuple[str, bytes] | None]:
    """The wanted states that take every key back; ``body(key, written)`` gives the body written at a step."""
    return {key: None if was is None else (was.position, body(key, was.written)) for key, was in befores.items()}
