"""The past of a session: the log, undo and redo, any version again, and what differs between two.

Undo is a new commit that holds the inverse. The stacks are two linked lists inside the log: each commit names the one
beneath it, so they are as deep as the history and cost the header two integers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from holdfast.engine.editing import Decision, Stack
from holdfast.engine.journal import Journal
from holdfast.engine.opened import Opened
from holdfast.errors import NothingToUndoError, VersionNotFoundError
from holdfast.model.change import Before, Wanted, first_before, invert
from holdfast.model.difference import Difference, differences
from holdfast.model.entry import Entry
from holdfast.model.item import Item


class History:
    """Reads a session's past and decides what taking it back means."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def undo(self, opened: Opened) -> Decision:
        """What an undo would do: the inverse of the commit atop the undo stack, with all that share its group."""
        header = opened.header
        if header.undo == 0:
            raise NothingToUndoError("undo")
        wanted, below = await self._inverse(opened, header.undo, grouped=True)
        return Decision(wanted, Stack.UNDO, below)

    async def redo(self, opened: Opened) -> Decision:
        """What a redo would do: the inverse of the undo atop the redo stack."""
        header = opened.header
        if header.redo == 0:
            raise NothingToUndoError("redo")
        wanted, below = await self._inverse(opened, header.redo, grouped=False)
        return Decision(wanted, Stack.REDO, below)

    async def preview(self, opened: Opened, decide: Callable[[Opened], Awaitable[Decision]]) -> list[Difference]:
        """What a decision would change, without doing it."""
        decision = await decide(opened)
        after = dict(opened.items)
        for key, target in decision.wanted.items():
            if target is None:
                after.pop(key, None)
            else:
                after[key] = Item(key, target[0], target[1], 0, 0)
        return differences(opened.items, after, decision.wanted)

    async def restore(self, opened: Opened, version: int) -> Decision:
        """What takes the session back to a version, as a new commit."""
        then = await self.as_of(opened, version)
        wanted: dict[str, tuple[str, bytes] | None] = {
            key: (item.position, item.raw) for key, item in then.items() if opened.items.get(key) is not item
        }
        wanted.update((key, None) for key in opened.items if key not in then)
        return Decision(wanted)

    async def as_of(self, opened: Opened, version: int) -> Mapping[str, Item]:
        """The items as they were at a version, from 0 (none yet) to the newest.

        The cost grows with how far back it lies, not with the length of the history.
        """
        if version == opened.header.version:
            return opened.items
        befores = await self._touched_since(opened, version)
        items = dict(opened.items)
        wanted = await self._bodies(opened, befores)
        for key, target in wanted.items():
            was = befores[key]
            if target is None or was is None:
                items.pop(key, None)
            else:
                items[key] = Item(key, target[0], target[1], was.version, was.written)
        return items

    async def diff(self, opened: Opened, before: int, after: int) -> list[Difference]:
        """What differs between two versions, whichever is the older."""
        old, new = await self.as_of(opened, before), await self.as_of(opened, after)
        touched = await self._touched_since(opened, min(before, after))
        return differences(old, new, touched)

    async def touched_since(self, opened: Opened, version: int) -> set[str]:
        """Keys of the items that commits after a version have touched."""
        return set(await self._touched_since(opened, version))

    def check_version(self, opened: Opened, version: int | None) -> None:
        """Raise ``VersionNotFoundError`` unless the session has the version."""
        if version is not None and not 0 <= version <= opened.header.version:
            raise VersionNotFoundError(version, opened.header.version)

    async def page(self, opened: Opened, *, before: int | None, limit: int) -> list[Entry]:
        """Entries of the log, newest first, below a step."""
        latest = opened.header.step + 1
        return await self._journal.log.recent(opened, before=min(before or latest, latest), limit=limit)

    async def _inverse(self, opened: Opened, top: int, *, grouped: bool) -> tuple[Wanted, int]:
        entry = (await self._journal.log.at(opened, [top]))[top]
        taken = [entry]
        while grouped and entry.header.group is not None and entry.header.beneath:
            beneath = entry.header.beneath
            below = (await self._journal.log.at(opened, [beneath]))[beneath]
            if below.header.group != entry.header.group:
                break
            taken.append(below)
            entry = below
        befores = first_before(entry.changes for entry in reversed(taken))
        return await self._bodies(opened, befores), entry.header.beneath

    async def _bodies(self, opened: Opened, befores: Mapping[str, Before | None]) -> Wanted:
        """The wanted states that take every key back, with bodies from where they were written."""
        known: dict[tuple[str, int], bytes] = {}
        missing: list[tuple[str, int]] = []
        for key, was in befores.items():
            if was is None:
                continue
            item = opened.items.get(key)
            if item is not None and item.written == was.written:
                known[key, was.written] = item.raw
            else:
                missing.append((key, was.written))
        if missing:
            known |= await self._journal.log.bodies(opened, missing)
        return invert(befores, lambda key, written: known[key, written])

    async def _touched_since(self, opened: Opened, version: int) -> dict[str, Before | None]:
        self.check_version(opened, version)
        return await self._journal.log.touched(opened, version)
