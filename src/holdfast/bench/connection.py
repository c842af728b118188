"""A keep-alive connection to the server, as thin as it can be: who measures a server must not be the slower one.

It asks one thing at a time and reads of an answer what it needs: the status, the length and the tag.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast

HOST = "127.0.0.1"

_END = b"\r\n\r\n"
_ENDED = "the server has ended the connection"
_LENGTH, _TAG = b"\r\ncontent-length: ", b"\r\netag: "


class Answer(NamedTuple):
    """An answer, whole; ``tag`` is empty where it has none."""

    status: int
    tag: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """One connection; made by ``to``."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._whole = 0  # bytes of the answer that is on its way, once its head is there
        self._body = 0  # where in it the body begins
        self._asked: asyncio.Future[Answer] | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Connect to a port of this machine."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return connection

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request, once the last one was answered.

        Raises:
            ConnectionError: the other side has ended the connection; told by the future.
        """
        asked: asyncio.Future[Answer] = self._loop.create_future()
        if self._transport.is_closing():
            asked.set_exception(ConnectionResetError(_ENDED))
            return asked
        self._asked = asked
        self._transport.write(request)
        return asked

    def close(self) -> None:
        self._transport.abort()

    # -- what the event loop calls -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        held = self._held
        held += data
        if not self._whole:
            end = held.find(_END)
            if end < 0:
                return
            self._body = end + len(_END)
            self._whole = self._body + int(_field(held, _LENGTH, end) or b"0")
        if len(held) < self._whole:
            return
        answer = Answer(int(held[9:12]), _field(held, _TAG, self._body), bytes(held[self._body :]))
        self._whole = 0
        held.clear()
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(exc or ConnectionResetError(_ENDED))


def request(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    """A request as it is sent."""
    length = (f"content-length: {len(body)}",) if body else ()
    lines = (f"{method} {path} HTTP/1.1", f"host: {HOST}", *length, *fields, "", "")
    return "\r\n".join(lines).encode() + body


def _field(head: bytearray, name: bytes, end: int) -> bytes:
    """The value of a field of a head; empty where it is not there."""
    at = head.find(name, 0, end)
    return bytes(head[at + len(name) : head.index(b"\r\n", at + len(name))]) if at >= 0 else b""
