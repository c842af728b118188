"""A session's feed: its log in order, from wherever a reader stands, and as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from holdfast.engine.journal import Journal
from holdfast.engine.log import ROOM
from holdfast.engine.opened import Opened
from holdfast.errors import StoreUnavailableError
from holdfast.model.cursor import FeedCursor, read_feed_cursor, write_cursor
from holdfast.model.entry import Entry


class FeedPage(msgspec.Struct, frozen=True):
    """Entries in order, and the cursor to go on from. ``reload``: the past the cursor stood in is gone; read anew."""

    entries: tuple[Entry, ...]
    cursor: str
    reload: bool = False

    @property
    def cursors(self) -> list[str]:
        """The cursor after each of the entries."""
        return [write_cursor(FeedCursor(entry.step, entry.digest)) for entry in self.entries]


class Feed:
    """Reads and follows feeds."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def page(self, opened: Opened, after: str | None, limit: int, room: int = ROOM) -> FeedPage:
        """The entries beyond a cursor, or from the first; it ends early with the entry that fills ``room`` bytes.

        A cursor of a history that is no more (the session was put back from an older copy, or its past is pruned) is
        answered with ``reload`` and the cursor of today. Of a stale session that is not said: a reader who has seen
        more than the warm tier has keeps the cursor, and goes on from it once the hot tier is back.
        """
        header = opened.header
        here = write_cursor(FeedCursor(header.step, header.digest))
        cursor = FeedCursor(0, b"") if after is None else read_feed_cursor(after)
        if after is not None and header.stale and cursor.step >= header.step:
            return FeedPage((), after)
        if not 0 <= cursor.step < header.step:
            return FeedPage((), here, reload=(cursor.step, cursor.digest) != (header.step, header.digest))
        entries = await self._journal.log.entries(opened, after=cursor.step, limit=limit, room=room)
        first = entries[0] if entries else None
        if first is None or first.step != cursor.step + 1 or (cursor.step and first.header.parent != cursor.digest):
            return FeedPage((), here, reload=True)
        return FeedPage(tuple(entries), write_cursor(FeedCursor(entries[-1].step, entries[-1].digest)))

    async def follow(
        self, session: str, after: str | None, read: Callable[[str | None], Awaitable[FeedPage]], idle: float | None
    ) -> AsyncIterator[FeedPage]:
        """A page whenever there is more; ``read`` gives the page beyond a cursor, or raises once the right to it
        ends. After ``idle`` seconds without news comes a page without entries.

        While the hot tier is gone there is no news but what the warm one has more than the reader; it goes on by itself
        when the hot one is back. It ends with the error where no tier answers.
        """
        event = self._journal.watching.watch(session)
        try:
            while True:
                event.clear()
                try:
                    page = await read(after)
                except (
                    StoreUnavailableError
                ):  # the hot tier may have gone in the middle of it; then the warm one answers
                    page = await read(after)
                after = page.cursor
                if page.entries or page.reload:
                    yield page
                    continue
                while not event.is_set():
                    try:
                        async with asyncio.timeout(idle):
                            await event.wait()
                    except TimeoutError:
                        yield page
        finally:
            self._journal.watching.unwatch(session, event)
