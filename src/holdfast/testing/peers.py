"""Peers of an HTTP service as they come: those that say anything at all, byte by byte, or that never read.

``Peer`` is a bare connection; ``running`` puts any application on our server, in this process, to be spoken to.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.settings.sections import Service

if TYPE_CHECKING:
    from starlette.applications import Starlette


class Answer(msgspec.Struct, frozen=True):
    """An answer, its header names in small letters; of several fields of one name the last is kept."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Peer:
    """One connection, on which anything can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, address: str, *, window: int | None = None) -> AsyncIterator[Peer]:
        """Connect to ``http://host:port``.

        Args:
            window: bytes the system may hold that this peer has not read; as many as it likes, if not given.
        """
        host, _, port = address.removeprefix("http://").rpartition(":")
        host = host.strip("[]")
        connected = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        connected.setblocking(False)
        if window is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        try:
            await asyncio.get_running_loop().sock_connect(connected, (host, int(port)))
        except BaseException:
            connected.close()
            raise
        reader, writer = await asyncio.open_connection(sock=connected, limit=2**16 if window is None else window)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, data: bytes) -> None:
        """Send bytes, as they are.

        Raises:
            ConnectionError: the other side has ended the connection.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def drip(self, data: bytes, pause: float) -> Answer | None:
        """Send bytes one at a time; the answer that came before all were sent, None if none came.

        Raises:
            ConnectionError: the connection was ended without an answer.
        """
        answer = asyncio.create_task(self.answer())
        try:
            for byte in data:
                await asyncio.wait((answer,), timeout=pause)
                if answer.done():
                    return await answer
                with contextlib.suppress(ConnectionError):  # the answer may have come first
                    await self.send(bytes([byte]))
            return None
        finally:
            answer.cancel()
            await asyncio.wait((answer,))

    async def answer(self) -> Answer:
        """The next answer, whole.

        Raises:
            ConnectionError: the connection ended before it, or in it.
        """
        try:
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = (line.partition(":") for line in lines[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            return Answer(int(lines[0].split()[1]), headers, await self._body(headers))
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError(f"the connection ended after {error.partial[:80]!r}") from None

    async def ended(self, within: float) -> bool:
        """Whether the other side ends the connection within so many seconds; what it still says is dropped."""
        try:
            async with asyncio.timeout(within):
                while await self.reader.read(65_536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body


def request(method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
    """A request with a ``Host`` and, with a body, its length."""
    length = (f"Content-Length: {len(body)}",) if body else ()
    lines = (f"{method} {target} HTTP/1.1", "Host: localhost", *fields, *length, "", "")
    return "\r\n".join(lines).encode("latin-1") + body


@contextlib.asynccontextmanager
async def running(
    app: Starlette,
    bounds: Service,
    *,
    stopping: asyncio.Event | None = None,
    connection: Callable[..., asyncio.Protocol] | None = None,
    window: int | None = None,
) -> AsyncIterator[str]:
    """An application on our server, on a free port of this machine; gives its address, and stops at the end.

    Args:
        stopping: stops it when set.
        connection: another protocol in place of ours, such as uvicorn's own.
        window: bytes of an answer that the system may hold on this side; as many as it likes, if not given.
    """
    from holdfast.service.server import Address, run

    stopping = asyncio.Event() if stopping is None else stopping
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        if window is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, window)
        lifespan = app.router.lifespan_context(app)
        ran = run(app, lifespan, bounds, listener, stopping=stopping, ready=ready.set_result, connection=connection)
        server = asyncio.create_task(ran)
        await asyncio.wait((server, ready), return_when=asyncio.FIRST_COMPLETED)
        try:
            if ready.done():
                yield (await ready).url
        finally:
            stopping.set()
            await server
