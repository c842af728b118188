"""A session's log as it is read: from the hot tier, or the warm one where the hot has let entries go; checked link
by link.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.engine.opened import Opened
from holdfast.engine.sealing import decode_entry, open_payload
from holdfast.errors import TamperedError
from holdfast.model.entry import GENESIS, Entry, EntryHeader, SealedEntry, entry_digest
from holdfast.model.session import SealedHead
from holdfast.ports.hot import HotStore
from holdfast.ports.warm import WarmStore

_PAGE = 256


class Log:
    """Reads logs."""

    def __init__(self, hot: HotStore, warm: WarmStore) -> None:
        self._hot, self._warm = hot, warm

    async def entries(self, opened: Opened, *, after: int, limit: int) -> list[Entry]:
        """Entries beyond a step, in order: from the hot tier, or from the warm one where the hot has let them go."""
        session = opened.header.id
        sealed = await self._hot.entries(session, after=after, limit=limit)
        if after < opened.header.step and (not sealed or sealed[0].step != after + 1):
            sealed = await self._warm.entries(session, after=after, limit=limit)
        expected = min(limit, max(0, opened.header.step - after))
        return self._linked(opened, sealed, after + 1, expected)

    async def recent(self, opened: Opened, *, before: int, limit: int) -> list[Entry]:
        """Entries below a step, newest first."""
        session = opened.header.id
        sealed = await self._hot.recent(session, before=before, limit=limit)
        missing = min(before, opened.header.step + 1) - 1 - len(sealed)
        if len(sealed) < limit and missing > 0:
            first = max(0, missing - (limit - len(sealed)))
            older = await self._warm.entries(session, after=first, limit=missing - first)
            sealed += reversed(older)
        below = min(before, opened.header.step + 1)
        expected = min(limit, max(0, below - 1))
        return self._linked(opened, sealed[::-1], below - expected, expected)[::-1]

    async def since(self, opened: Opened, version: int) -> list[Entry]:
        """The commits that made the versions above one, in order."""
        commits: list[Entry] = []
        before = opened.header.step + 1
        limit = min(_PAGE, opened.header.version - version + 4)
        while before > 1:
            page = await self.recent(opened, before=before, limit=limit)
            if not page:
                break
            for entry in page:
                if entry.version <= version:
                    return commits[::-1]
                if entry.commit:
                    commits.append(entry)
            before, limit = page[-1].step, _PAGE
        return commits[::-1]

    async def headers(self, session: str, *, after: int, limit: int) -> list[EntryHeader]:
        """Who did what, when, beyond a step: what is left of a log whose content is gone."""
        found = []
        for entry in await self._warm.entries(session, after=after, limit=limit):
            what = f"step {entry.step} of session {session}"
            whole = entry_digest(entry.header, entry.payload), entry_digest(entry.header, entry.payload, purged=True)
            if entry.digest not in whole:
                raise TamperedError(what)
            found.append(decode_entry(entry.header, what))
        return found

    async def at(self, opened: Opened, steps: Iterable[int]) -> dict[int, Entry]:
        """The entries at some steps; ``TamperedError`` if one is missing."""
        wanted = list(dict.fromkeys(steps))
        found = await self._hot.at(opened.header.id, wanted)
        missing = [step for step in wanted if step not in found]
        if missing:
            found |= await self._warm.at(opened.header.id, missing)
        if len(found) < len(wanted):
            raise TamperedError(f"the log of session {opened.header.id}")
        return {step: self._entry(opened, entry) for step, entry in found.items()}

    async def change(self, opened: Opened, change: str) -> Entry | None:
        """The entry of a change id, None if there is none."""
        sealed = await self._hot.change(opened.header.id, change)
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
            if again is None or again.step == head.step:
                raise TamperedError(f"session {head.id}")

    def _linked(self, opened: Opened, sealed: Sequence[SealedEntry], first: int, least: int) -> list[Entry]:
        """A run of the log from a step on, checked link by link; ``TamperedError`` if an entry is missing or is
        another's.
        """
        header, parent = opened.header, GENESIS if first == 1 else None
        if len(sealed) < least:
            raise TamperedError(f"the log of session {header.id}")
        entries = []
        for step, row in enumerate(sealed, first):
            entry = self._entry(opened, row)
            linked = entry.step == step and entry_digest(row.header, row.payload) == row.digest
            if not linked or (parent is not None and entry.header.parent != parent):
                raise TamperedError(f"step {step} of session {header.id}")
            if step == header.step and row.digest != header.digest:
                raise TamperedError(f"step {step} of session {header.id}")
            parent = row.digest
            entries.append(entry)
        return entries

    def _entry(self, opened: Opened, sealed: SealedEntry) -> Entry:
        what = f"step {sealed.step} of session {opened.header.id}"
        header = decode_entry(sealed.header, what)
        told = (header.step, header.version, header.commit, header.change)
        if told != (sealed.step, sealed.version, sealed.commit, sealed.change):
            raise TamperedError(what)
        payload = open_payload(opened.cipher, sealed.header, sealed.payload, what)
        return Entry(sealed.session, header, payload, sealed.digest, sealed.commit)
