"""Finding sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from msgspec.structs import replace

from holdfast.engine.gate import STALE, Gate
from holdfast.model.access import Principal
from holdfast.model.cursor import PageCursor, read_page_cursor, write_cursor
from holdfast.model.session import GONE, Header, SealedHead, Tier
from holdfast.model.text import is_text
from holdfast.ports.warm import Query, WarmStore

_AT_ONCE, _TURN = 256, 16


class Page(msgspec.Struct, frozen=True):
    """Session headers, newest first, and the cursor of the page after; None after the last.

    ``unreadable`` names the principal's own sessions met on the way (an admin's: all) that are there but do not open:
    absent and corrupt are two different answers. ``stale``: the hot tier does not answer, so that there may be newer
    states, and sessions that are not here.
    """

    headers: tuple[Header, ...]
    cursor: str | None
    unreadable: tuple[str, ...] = ()
    stale: bool = False


class Catalogue:
    """Lists what a principal may know of."""

    def __init__(self, warm: WarmStore, gate: Gate) -> None:
        self._warm, self._gate = warm, gate

    async def find(
        self,
        who: Principal,
        query: Query,
        text: str | None,
        tier: Tier | None,
        after: str | None,
        limit: int,
        *,
        stale: bool = False,
    ) -> Page:
        """Sessions that match and that this principal may know of; ``text`` is looked for in titles, case aside.

        Args:
            stale: mark what is found as perhaps not the newest.
        """
        cursor = read_page_cursor(after) if after else None
        if not all(map(is_text, filter(None, (query.owner, query.kind, query.status)))):
            return Page((), None)  # no store can hold such words, so no session has them
        if stale:
            STALE.set(True)
        wanted = None if text is None else text.casefold()
        found: list[Header] = []
        unreadable: list[str] = []
        async for head in self.all(query, cursor):
            header = self._gate.seen(who, head)
            purged = head.key is None and head.status in GONE
            if header is None and not purged and (who.id == head.owner or who.roles & {"admin", "auditor"}):
                unreadable.append(head.id)
            if header is None or (wanted is not None and wanted not in header.title.casefold()):
                continue
            if tier is not None and header.tier is not tier:
                continue
            found.append(replace(header, stale=True) if stale else header)
            if len(found) > limit:
                last = found[limit - 1]
                cursor_of_last = write_cursor(PageCursor(last.created.timestamp(), last.id))
                return Page(tuple(found[:limit]), cursor_of_last, tuple(unreadable), stale)
        return Page(tuple(found), None, tuple(unreadable), stale)

    async def all(self, query: Query, after: PageCursor | None = None) -> AsyncIterator[SealedHead]:
        """Every session that matches, newest first, for whoever may see all of them. Others get their turn between."""
        while True:
            heads = await self._warm.find(query, after=after, limit=_AT_ONCE)
            for count, head in enumerate(heads, 1):
                yield head
                if count % _TURN == 0:  # an embedded store never waits, and there may be thousands
                    await asyncio.sleep(0)
            if len(heads) < _AT_ONCE:
                return
            after = PageCursor(heads[-1].created, heads[-1].id)
