"""An application within its edge, with nothing else of the service, and what it has written and counted.

For tests of the edge, the lines and the figures. Needs the [server] extra.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import msgspec

from holdfast.settings import Settings

if TYPE_CHECKING:
    import httpx2
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE = "http://127.0.0.1:8420"


class Around:
    """An edge around an application."""

    def __init__(self, app: ASGIApp, settings: Settings, level: str = "info") -> None:
        from holdfast.service.edge import Edge
        from holdfast.service.logs import Logs
        from holdfast.service.meters import Meters

        self.written, self.meters, self.stopping = io.BytesIO(), Meters(), asyncio.Event()
        self.settings, self.logs = settings, Logs(level, self.written)
        self.edge = Edge(app, self)

    @property
    def raw(self) -> bytes:
        """What was written, byte by byte."""
        return self.written.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was written, line by line."""
        return [msgspec.json.decode(line) for line in self.raw.splitlines()]

    async def figures(self) -> str:
        """What was counted."""
        return (await self.meters.render()).decode()

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
        """A client of it, without sockets."""
        import httpx2

        transport = httpx2.ASGITransport(self.edge)
        async with httpx2.AsyncClient(transport=transport, base_url=HERE, headers=headers) as client:
            yield client

    def serving(self, app: Starlette) -> Starlette:
        """The application within its edge as ``peers.running`` takes it, with its lifespan."""

        async def within(scope: Scope, receive: Receive, send: Send) -> None:
            await self.edge(scope, receive, send)

        within.router = app.router  # type: ignore[attr-defined]
        return cast("Starlette", within)


class Told:
    """Takes what an application sends."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


async def nothing_more() -> Message:
    """A body without a byte."""
    return {"type": "http.request", "body": b"", "more_body": False}


def asked(path: str, *, query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    """The scope of a GET, from a local host unless other headers are given."""
    given = [(b"host", b"localhost")] if headers is None else headers
    return {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": given, "scheme": "http"}
