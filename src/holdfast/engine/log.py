"""A session's log as it is read: from the hot tier, or the warm one where the hot has let entries go; checked link
by link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from holdfast.engine.opened import Opened
from holdfast.engine.sealing import decode_entry, open_payload
from holdfast.errors import TamperedError
from holdfast.model.change import Before, first_before
from holdfast.model.cursor import Seen
from holdfast.model.entry import GENESIS, Entry, EntryHeader, SealedEntry, entry_digest
from holdfast.model.session import SealedHead
from holdfast.ports.hot import HotStore, TieredHotStore
from holdfast.ports.warm import WarmStore

_PAGE = 256
ROOM = 8_000_000
"""Bytes of sealed payloads after which a page of the log ends, however few entries it has: one may be of 10 MB."""
_SLICE = 16
_MOST_TRIES = 8

_Found = TypeVar("_Found")


class Log:
    """Reads logs."""

    def __init__(self, hot: HotStore, warm: WarmStore, tiered: TieredHotStore | None) -> None:
        """``tiered``: the hot store, where it and the warm one are two: what the one does not have the other may."""
        self._hot, self._warm, self._tiered = hot, warm, tiered
        self.bring: Callable[[str], Awaitable[object]] | None = None
        """Brings a session up that has been archived while it was read."""

    async def entries(self, opened: Opened, *, after: int, limit: int, room: int = ROOM) -> list[Entry]:
        """Entries beyond a step, in order: from the hot tier, or from the warm one where the hot has let them go.
        Fewer than there are if they are large, but one at least.
        """
        return await self._read(opened, lambda: self._entries(opened, after, limit, room))

    async def _entries(self, opened: Opened, after: int, limit: int, room: int) -> list[Entry]:
        last = opened.header.step
        sealed = await self._sealed(opened.header.id, after, last, limit, room, only_warm=opened.header.stale)
        last = max(last, after + len(sealed))  # a commit may have come between
        steps = range(after + 1, min(after + limit, last) + 1)
        return self._linked(opened, sealed, steps, room, partly=_full(sealed, room))

    async def recent(self, opened: Opened, *, before: int, limit: int) -> list[Entry]:
        """Entries below a step, newest first; fewer than there are if they are large, but one at least."""
        return await self._read(opened, lambda: self._recent(opened, before, limit))

    async def _recent(self, opened: Opened, before: int, limit: int) -> list[Entry]:
        session, first = opened.header.id, min(before, opened.header.step + 1) - 1
        steps = range(first, max(0, first - limit), -1)
        sealed = list[SealedEntry]()
        if not opened.header.stale:
            sealed = await self._hot.recent(session, before=first + 1, limit=limit, room=ROOM)
        while len(sealed) < len(steps) and not _full(sealed, ROOM):
            missing = first - len(sealed)
            most = min(missing, limit - len(sealed), _SLICE)
            older = await self._warm.entries(session, after=missing - most, limit=most)
            if not older:
                break
            sealed += reversed(older)
        return self._linked(opened, sealed, steps, ROOM, partly=_full(sealed, ROOM))

    async def touched(self, opened: Opened, version: int) -> dict[str, Before | None]:
        """Each key that commits after a version have touched, and where it stood at that version.

        However long that is ago, no more than a page of the log is held at a time, and others have their turn between.
        """
        befores: dict[str, Before | None] = {}
        before = opened.header.step + 1
        limit = min(_PAGE, opened.header.version - version + 4)
        while before > 1:
            page = await self.recent(opened, before=before, limit=limit)
            for entry in page:
                if entry.version <= version:
                    return befores
                if entry.commit:
                    befores |= first_before([entry.changes])  # an older one tells of the key's place before
            if not page:
                break
            before, limit = page[-1].step, _PAGE
            await asyncio.sleep(0)
        return befores

    async def headers(self, session: str, *, after: int, limit: int) -> list[EntryHeader]:
        """Who did what, when, beyond a step: what is left of a log whose content is gone."""
        found = []
        for entry in await self._sealed(session, after, after + 1, limit, ROOM, only_warm=False):
            what = f"step {entry.step} of session {session}"
            whole = entry_digest(entry.header, entry.payload), entry_digest(entry.header, entry.payload, purged=True)
            if entry.digest not in whole:
                raise TamperedError(what)
            found.append(decode_entry(entry.header, what))
        return found

    async def at(self, opened: Opened, steps: Iterable[int]) -> dict[int, Entry]:
        """The entries at some steps; ``TamperedError`` if one is missing."""
        wanted = list(dict.fromkeys(steps))
        return await self._read(opened, lambda: self._at(opened, wanted))

    async def _at(self, opened: Opened, wanted: Sequence[int]) -> dict[int, Entry]:
        found = dict[int, SealedEntry]()
        if not opened.header.stale:
            found = await self._hot.at(opened.header.id, wanted)
        missing = [step for step in wanted if step not in found]
        if missing:
            found |= await self._warm.at(opened.header.id, missing)
        if len(found) < len(wanted):
            raise TamperedError(f"the log of session {opened.header.id}")
        return {step: self._entry(opened, entry) for step, entry in found.items()}

    async def has(self, opened: Opened, seen: Seen) -> bool:
        """Whether a state somebody saw is of this log, and not of one that a lost disk has replaced."""
        header = opened.header
        if not 0 < seen.step <= header.step:
            return False
        digest = header.digest
        if seen.step != header.step:
            digest = (await self.at(opened, [seen.step]))[seen.step].digest
        return digest.startswith(seen.digest)

    async def change(self, opened: Opened, change: str) -> Entry | None:
        """The entry of a change id, None if there is none.

        The hot tier knows the change ids of all that it has, though not always the entry.

        Raises:
            StoreUnavailableError: the tier that has it does not answer.
        """
        session = opened.header.id
        if self._tiered is not None and not opened.header.stale:
            step = await self._tiered.known(session, change)
            if step is not None:
                return (await self.at(opened, [step]))[step] if step else None
        elsewhere = opened.header.stale or self._tiered is not None
        sealed = await (self._warm if elsewhere else self._hot).change(session, change)
        return None if sealed is None else self._entry(opened, sealed)

    async def bodies(self, opened: Opened, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        """The bodies of items as they were written at steps of the log."""
        wanted = list(places)
        entries = await self.at(opened, (step for _, step in wanted))
        bodies = {}
        for key, step in wanted:
            raw = next((change.body for change in entries[step].changes if change.key == key), None)
            if raw is None:
                raise TamperedError(f"the log of session {opened.header.id}")
            bodies[key, step] = bytes(raw)
        return bodies

    async def check_newest(self, head: SealedHead) -> None:
        """Raise ``TamperedError`` if the log goes on behind a head: an old one was put back."""
        if await self._hot.entries(head.id, after=head.step, limit=1):
            again = await self._hot.head(head.id)
            if again is None and self._tiered is not None:
                return  # it has been set to rest meanwhile
            if again is None or again.step == head.step:
                raise TamperedError(f"session {head.id}")

    async def _read(self, opened: Opened, read: Callable[[], Awaitable[_Found]]) -> _Found:
        """What is read of a log; once again where it could not be had because the session went to the cold tier
        between its opening and now.
        """
        for attempt in range(_MOST_TRIES):
            try:
                return await read()
            except TamperedError:
                if opened.header.stale or self.bring is None:
                    raise
                head = await self._warm.head(opened.header.id)
                if head is None or (head.archive is None and attempt):
                    raise
                if head.archive is not None:
                    await self.bring(opened.header.id)
        return await read()

    async def _sealed(
        self, session: str, after: int, last: int, limit: int, room: int, *, only_warm: bool
    ) -> list[SealedEntry]:
        """Entries beyond a step, at least to ``last``: those that the hot tier has let go of come from the warm one,
        which may in turn not have the newest yet.
        """
        if only_warm:
            return await self._warm.entries(session, after=after, limit=limit, room=room)
        sealed = await self._hot.entries(session, after=after, limit=limit, room=room)
        first = sealed[0].step if sealed else last + 1
        if first <= after + 1:
            return sealed
        most = min(limit, first - after - 1) if sealed else limit
        older = await self._warm.entries(session, after=after, limit=most, room=room)
        if _full(older, room) or not older or not sealed or older[-1].step + 1 != first:
            return older
        return (older + sealed)[:limit]

    def _linked(
        self, opened: Opened, sealed: Sequence[SealedEntry], steps: range, room: int, *, partly: bool
    ) -> list[Entry]:
        """A run of the log, one entry for each of the steps, checked link by link.

        It ends with the entry that brings the bodies to ``room`` bytes; ``partly``, also where the sealed ones end.

        Raises:
            TamperedError: an entry is missing or is another's.
        """
        header = opened.header
        if len(sealed) < len(steps) and not partly:
            raise TamperedError(f"the log of session {header.id}")
        entries: list[Entry] = []
        held = 0
        for step, row in zip(steps, sealed, strict=False):
            entry = self._entry(opened, row)
            linked = entry.step == step and entry_digest(row.header, row.payload) == row.digest
            if entries:
                older, newer = sorted((entries[-1], entry), key=lambda one: one.step)
                linked = linked and newer.header.parent == older.digest
            if not linked or (step == 1 and entry.header.parent != GENESIS):
                raise TamperedError(f"step {step} of session {header.id}")
            if step == header.step and row.digest != header.digest:
                raise TamperedError(f"step {step} of session {header.id}")
            entries.append(entry)
            held += sum(len(change.body) for change in entry.changes if change.body is not None)
            if held >= room:
                break
        return entries

    def _entry(self, opened: Opened, sealed: SealedEntry) -> Entry:
        what = f"step {sealed.step} of session {opened.header.id}"
        header = decode_entry(sealed.header, what)
        told = (header.step, header.version, header.commit, header.change)
        if told != (sealed.step, sealed.version, sealed.commit, sealed.change):
            raise TamperedError(what)
        payload = open_payload(opened.cipher, sealed.header, sealed.payload, what)
        return Entry(sealed.session, header, payload, sealed.digest, sealed.commit)


def _full(page: Sequence[SealedEntry], room: int) -> bool:
    return sum(len(entry.payload) for entry in page) >= room
