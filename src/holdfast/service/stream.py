"""A session's feed as server-sent events (WHATWG HTML, 9.2).

One coroutine a stream and nothing buffered: the next page is read once the last was taken by the peer's connection,
and the server cuts a connection whose peer takes nothing. A library for this was looked at; it runs four tasks a
stream, logs what it sends at debug level, and changes the server's class on import.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from time import monotonic

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.engine.feed import FeedPage
from holdfast.errors import HoldfastError, StoppingError, UnauthenticatedError
from holdfast.service.problems import described
from holdfast.service.service import Service, caller_of
from holdfast.wire.entries import EntryForm

IDLE = 0.4
"""Seconds after which a stream without news asks whether it may go on: a token that has ended ends it within them. A
right that is withdrawn is news, and wakes it at once."""

_RETRY = b"retry: 1000\n\n"
_encode = msgspec.json.Encoder().encode


class EventStream(Response):
    """Sends what an iterator gives until it ends or the peer is gone."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], request: Request, held: ExitStack) -> None:
        """``held`` is let go of when the stream is over."""
        super().__init__(None, 200, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        if "content-length" in self.headers:
            del self.headers["content-length"]
        self._events, self._request, self._held = events, request, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._events):
                async for data in self._events:
                    if await self._request.is_disconnected():
                        break
                    if data:
                        await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def events(
    service: Service, request: Request, pages: AsyncGenerator[FeedPage], first: FeedPage
) -> AsyncGenerator[bytes]:
    """The feed as events: one an entry, named after its operation, with the cursor after it as its id.

    ``reload`` says that the past the reader stood in is gone; ``end``, with a problem, why the stream is over. Between
    events come comments, so that both sides learn of a dead connection; where there is nothing to send, empty bytes
    give the reader of this a turn.
    """
    caller, heartbeat, last = caller_of(request), service.settings.service.heartbeat, monotonic()
    service.meters.streams += 1
    try:
        yield _RETRY + _told(first)
        async with aclosing(pages):
            async for page in pages:
                if service.stopping.is_set():
                    raise StoppingError
                if not service.authenticator.stands(caller):
                    raise UnauthenticatedError("the token has ended")
                if page.entries or page.reload:
                    last = monotonic()
                    yield _told(page)
                elif monotonic() - last >= heartbeat:
                    last = monotonic()
                    yield b": still here\n\n"
                else:
                    yield b""
    except HoldfastError as error:
        yield b"event: end\ndata: %b\n\n" % _encode(described(error))
    finally:
        service.meters.streams -= 1


def _told(page: FeedPage) -> bytes:
    if page.reload:
        return b'event: reload\nid: %b\ndata: {"reload":true}\n\n' % page.cursor.encode()
    return b"".join(
        b"event: %b\nid: %b\ndata: %b\n\n"
        % (entry.header.operation.encode(), cursor.encode(), _encode(EntryForm.of(entry)))
        for entry, cursor in zip(page.entries, page.cursors, strict=True)
    )
