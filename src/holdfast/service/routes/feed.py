"""The feed: every commit and step of a session in order, as pages or as a stream."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

from fastapi import Header, Request
from starlette.responses import Response

from holdfast.engine.feed import FeedPage
from holdfast.service import answers
from holdfast.service.examples import EVENT
from holdfast.service.parameters import After, Limit, SessionId
from holdfast.service.routing import SESSION, Routes
from holdfast.service.service import Who, service_of
from holdfast.service.stream import IDLE, EventStream, events

routes = Routes("feed")

LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="The id of the last event you saw: go on after it.", max_length=500),
]
_DATA = {
    "anyOf": [
        {"$ref": "#/components/schemas/Entry"},
        {"type": "object", "required": ["reload"], "properties": {"reload": {"const": True}}},
        {"$ref": "#/components/schemas/Problem"},
    ]
}
_EVENT = {
    "type": "object",
    "description": "A server-sent event. `id` is the cursor, `event` the operation (`edit`, `lock`, `warn` ...) and"
    " `data` an Entry; `reload`: read the session anew; `end`: a Problem that says why the stream is over.",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _DATA},
        "retry": {"type": "integer"},
    },
}


@routes("GET", "/sessions/{session}/feed", "feed", answers=FeedPage, errors=(*SESSION, "invalid-cursor"))
async def read_feed(
    request: Request, session: SessionId, who: Who, after: After = None, limit: Limit = 100
) -> Response:
    """A page of the feed beyond a cursor, from the first entry without one."""
    return answers.answer(await service_of(request).engine.feed(session, who, after=after, limit=limit))


@routes(
    "GET",
    "/sessions/{session}/events",
    "feed",
    answers=_EVENT,
    shows=EVENT,
    content="text/event-stream",
    errors=(*SESSION, "invalid-cursor"),
)
async def follow(
    request: Request, session: SessionId, who: Who, last_event_id: LastEventId = None, after: After = None
) -> Response:
    """The feed as it grows, with nothing left out and nothing twice; `Last-Event-ID` or `after` goes on where a reader
    stood.
    """
    service = service_of(request)
    held = ExitStack()
    held.enter_context(service.rates.stream(who))
    try:  # a refusal comes before the first byte, and that without waiting for news
        first = await service.engine.feed(session, who, after=last_event_id or after, limit=1)
    except BaseException:
        held.close()
        raise
    pages = service.engine.follow(session, who, after=first.cursor, idle=IDLE)
    return EventStream(events(service, request, pages, first), request, held)
