"""What can stand between a client and a service: a proxy that cuts replies, and a service that answers by a script.

Needs the [server] extra.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from holdfast.errors import HoldfastError
from holdfast.service.problems import problem

Cut = Callable[[str], int | None]
"""Given the first line of a request: after how many bytes of its reply to cut the connection; None for never."""


class Asked(NamedTuple):
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


async def request_of(reader: asyncio.StreamReader) -> tuple[Asked, bytes] | None:
    """The next request, and its bytes; None if there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *fields = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(first, headers, body), head + body


@contextlib.asynccontextmanager
async def proxy(upstream: str, cut: Cut) -> AsyncIterator[str]:
    """Passes everything on, but cuts replies; gives its address.

    A reply of which nothing is to come through is waited for first: the request has had its effect.
    """
    host, _, port = upstream.removeprefix("http://").rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        replies: asyncio.Task[None] | None = None
        try:
            while (asked := await request_of(reader)) is not None:
                if replies is not None:  # the reply before is through, or the client would not ask
                    replies.cancel()
                    await asyncio.gather(replies, return_exceptions=True)
                back.write(asked[1])
                await back.drain()
                replies = asyncio.create_task(reply(there, writer, cut(asked[0].line)))
        finally:
            if replies is not None:
                replies.cancel()
                await asyncio.gather(replies, return_exceptions=True)
            for end in (writer, back):
                end.transport.abort()

    async def reply(there: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while piece := await there.read(65_536):
            if left is not None:
                piece, left = piece[:left], left - len(piece)
            writer.write(piece)
            await writer.drain()
            if left is not None and left <= 0:
                break
        writer.transport.abort()

    async with listening(carry) as address:
        yield address


Said = bytes | None | Awaitable[None]
"""What to answer: bytes, nothing but the end of the connection, or something to wait for before that."""


class Scripted:
    """A service that answers by a script, one answer a request.

    Attributes:
        asked: the requests so far.
    """

    def __init__(self, *script: Said) -> None:
        self.asked: list[Asked] = []
        self._script = list(script)

    @property
    def change_ids(self) -> list[str | None]:
        return [one.headers.get("idempotency-key") for one in self.asked]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Its address."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await request_of(reader)
            if asked is not None:
                self.asked.append(asked[0])
                said = self._script.pop(0)
                if isinstance(said, bytes):
                    writer.write(said)
                    await writer.drain()
                    writer.write_eof()
                    await reader.read(1)
                elif said is not None:
                    await said

        async with listening(answer) as address:
            yield address


def answering(status: int, body: bytes = b"", *fields: str, media: str = "application/json") -> bytes:
    """The bytes of an answer."""
    lines = (f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", f"Content-Type: {media}", *fields, "", "")
    return "\r\n".join(lines).encode() + body


def refusing(error: HoldfastError, *fields: str) -> bytes:
    """The bytes of an answer with an error, as the service makes it."""
    made = problem(error, "a-request")
    own = [f"{name}: {value}" for name, value in made.headers.items() if name == "retry-after" and not fields]
    return answering(made.status_code, bytes(made.body), "X-Request-Id: a-request", *own, *fields)


def telling(value: Any) -> bytes:
    """The bytes of an answer with JSON."""
    return answering(200, msgspec.json.encode(value))


@contextlib.asynccontextmanager
async def listening(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server on a free port; at the end of the block nothing of it is left."""
    tasks: set[asyncio.Task[None]] = set()

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):  # streams cannot be cancelled
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(taken, "127.0.0.1", 0, limit=2**20)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
