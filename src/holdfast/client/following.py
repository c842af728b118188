"""A session's feed as it grows, over server-sent events: it goes on by itself where a connection ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator

from holdfast.client.events import Event, EventParser
from holdfast.client.problems import rebuilt
from holdfast.client.transport import Ask, Transport, pause
from holdfast.engine.feed import FeedPage
from holdfast.errors import InvalidCursorError, RateLimitedError, ServiceError, UnavailableError
from holdfast.model.entry import Entry
from holdfast.wire import forms

SILENCE = 60.0
"""Seconds without a byte after which a connection counts as lost: a service sends something every 15 unless it is set
otherwise.
"""


async def follow(transport: Transport, path: str, after: str | None, idle: float | None) -> AsyncGenerator[FeedPage]:
    """A page whenever there is more; see ``Engine.follow``."""
    if after is not None and not (after and after.isascii() and after.isprintable()):
        raise InvalidCursorError
    pages = _pages(transport, path, after)
    coming = asyncio.ensure_future(anext(pages))
    try:
        while True:
            await asyncio.wait((coming,), timeout=idle)
            if coming.done():
                page = coming.result()
                after = page.cursor
                yield page
                coming = asyncio.ensure_future(anext(pages))
            else:
                yield FeedPage((), after or "")
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await pages.aclose()


async def _pages(transport: Transport, path: str, after: str | None) -> AsyncGenerator[FeedPage]:
    """Pages from one connection after the other, each from where the one before ended.

    It gives up after as many failures in a row as the client has retries; a connection over which anything came but its
    beginning is none.
    """
    failed = 0
    while True:
        parser, has_begun = EventParser(), False
        headers = {"accept": "text/event-stream", **({} if after is None else {"last-event-id": after})}
        ask = Ask(method="GET", path=path, headers=headers)
        try:
            async with transport.stream(ask, silence=SILENCE, retries=0) as pieces:
                async for piece in pieces:
                    for page in pages_of(parser.feed(piece)):
                        failed, after = 0, page.cursor or after
                        yield page
                    failed = 0 if has_begun else failed
                    has_begun = True
            raise ServiceError("The feed ended without saying why.")
        except (UnavailableError, RateLimitedError) as error:
            seconds = pause(failed, getattr(error, "retry_after", parser.retry))
            if failed >= transport.retries or seconds is None:
                raise
            failed += 1
        await asyncio.sleep(seconds)


def pages_of(events: Iterable[Event]) -> Iterator[FeedPage]:
    """What events say: entries that came together as one page, and a page by itself that says to read anew.

    Raises:
        HoldfastError: why the service has ended the stream.
    """
    entries, cursor = list[Entry](), ""
    for event in events:
        if event.name in ("reload", "end"):
            said = forms.decode(event.data.encode(), dict)
            if "step" not in said:  # else it is an entry whose author has named the operation so
                if entries:
                    yield FeedPage(tuple(entries), cursor)
                    entries = []
                if event.name == "end":
                    raise rebuilt(said)
                yield FeedPage((), event.id, reload=True)
                continue
        entries.append(forms.decode(event.data.encode(), Entry))
        cursor = event.id
    if entries:
        yield FeedPage(tuple(entries), cursor)
