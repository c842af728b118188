"""A lane to a Redis server: one connection, with one pipeline under way at a time, and what is sent on it.

The connection is redis-py's until it has been dialled, has authenticated and is checked. Then the lane takes its
transport and reads the replies itself: redis-py awaits each through a stream and a timeout, which takes some 40 µs of
processor time more for an exchange of one command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import Connection
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError, ResponseError

Argument = bytes | str | int
Command = tuple[Argument, ...]
Dial = Callable[[], Awaitable[Connection]]

_READ_BYTES = 65_536  # at a time; a longer reply comes in several
_MORE = object()  # what the parser gives while a reply is not whole


class Sent:
    """A command on its way, and what came of it. ``replies``: how many the server gives; the last is the answer."""

    __slots__ = ("_answer", "_error", "_settled", "_waiter", "packed", "replies")

    def __init__(self, packed: bytes, replies: int = 1) -> None:
        self.packed, self.replies = packed, replies
        self._waiter: asyncio.Future[None] | None = None
        self._answer: Any = None
        self._error: BaseException | None = None
        self._settled = False

    def settle(self, answer: Any, error: BaseException | None = None) -> None:
        """It came to this. The first call counts."""
        if self._settled:
            return
        self._answer, self._error, self._settled = answer, error, True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def answer(self) -> Any:
        """The outcome. A caller that is cancelled waits for it too, and then the cancellation goes on."""
        cancelled: asyncio.CancelledError | None = None
        while not self._settled:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        if self._error is not None:
            raise self._error
        return self._answer


class Keeper(Protocol):
    """Who has the lanes, and hears of what becomes of them; of each lane that it is lost once, and then no more."""

    def done(self, lane: Lane) -> None:
        """The pipeline is settled, and the lane can take another."""

    def lost(self, lane: Lane, error: BaseException, *, reached: bool) -> None:
        """The lane is to be dropped, under way or idle. ``reached``: it had a connection, and only that is amiss."""


class Lane(asyncio.BufferedProtocol):
    """A connection for as long as it is sound; it dials when it is first needed."""

    __slots__ = (
        "_at",
        "_batch",
        "_buffer",
        "_keeper",
        "_left",
        "_reader",
        "_replica",
        "_stream",
        "_transport",
        "dialling",
    )

    def __init__(self, keeper: Keeper) -> None:
        self._keeper: Keeper | None = keeper
        self._transport: asyncio.Transport | None = None
        self._stream: asyncio.StreamWriter | None = None  # redis-py's, which closes the transport once nobody has it
        self._reader = hiredis.Reader(InvalidResponse, BaseParser.parse_error, notEnoughData=_MORE)
        self._buffer = memoryview(b"")  # TLS fills parts of it
        self._batch: Sequence[Sent] = ()
        self._at = self._left = 0  # the command whose reply is next, and how many replies it still gets
        self._replica = False
        self.dialling: asyncio.Task[None] | None = None

    def carry(self, batch: Sequence[Sent], dial: Dial) -> None:
        """Send a pipeline; only what is done with the last may send another."""
        self._batch, self._at, self._left = batch, 0, batch[0].replies
        if self._transport is None:
            self.dialling = asyncio.create_task(self._dial(dial), name="holdfast-redis-dial")
        else:
            self._write()

    def drop(self) -> list[Sent]:
        """Let go of the connection; what of the pipeline is not settled."""
        left = [*self._batch[self._at :]]
        self._batch, self._at, self._keeper = (), 0, None
        if self.dialling is not None:
            self.dialling.cancel()
        if self._transport is not None:
            self._transport.abort()
        return left

    def _write(self) -> None:
        batch, transport = self._batch, self._transport
        if transport is not None:
            transport.write(batch[0].packed if len(batch) == 1 else b"".join([sent.packed for sent in batch]))

    async def _dial(self, dial: Dial) -> None:
        connection: Connection | None = None
        try:
            connection = await dial()
            if await connection.can_read():  # it was closed meanwhile, or says what nobody has asked
                await connection.disconnect(nowait=True)
            self._take(connection)
            self.dialling = None
            self._write()
        except BaseException as error:
            self.dialling = None
            if connection is not None and self._transport is None:  # it is nobody's
                await connection.disconnect(nowait=True)
            self._lose(error, reached=False)
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise

    def _take(self, connection: Connection) -> None:
        """Take the transport of a connection, which is done with it."""
        stream, connection._writer, connection._reader = connection._writer, None, None
        if stream is None or stream.transport.is_closing():
            raise ConnectionResetError
        self._stream, transport = stream, cast(asyncio.Transport, stream.transport)
        transport.pause_reading()  # uvloop looks at the protocol when it begins to read
        transport.set_protocol(self)
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._transport = transport
        transport.resume_reading()

    # -- what the event loop calls -----------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        reader = self._reader
        try:
            reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # its stub knows of bytes only
            while (reply := reader.gets()) is not _MORE:
                if not self._settle(reply):
                    return
        except RedisError as error:  # that is not Redis' protocol
            self._lose(error)

    def eof_received(self) -> None:
        self._lose(ConnectionResetError())

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc or ConnectionResetError())

    def _settle(self, reply: Any) -> bool:
        """Take the next reply; whether another may follow it."""
        batch, error = self._batch, None
        if self._at >= len(batch):  # nobody has asked for it
            self._lose(InvalidResponse())
            return False
        if isinstance(reply, Exception):
            if not isinstance(reply, ResponseError):  # it is loading, or does not know us any more: no answer to this
                self._lose(reply)
                return False
            self._replica = self._replica or isinstance(reply, ReadOnlyError)  # it has become a replica
            reply, error = None, reply
        self._left -= 1
        if self._left:
            return True
        batch[self._at].settle(reply, error)
        self._at += 1
        if self._at < len(batch):
            self._left = batch[self._at].replies
            return True
        if self._replica or self._reader.has_data():
            self._lose(ReadOnlyError() if self._replica else InvalidResponse())
        elif self._keeper is not None:
            self._batch, self._at = (), 0
            self._keeper.done(self)
        return False

    def _lose(self, error: BaseException, *, reached: bool = True) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.lost(self, error, reached=reached)


def packed(command: Command) -> bytes:
    """A command in Redis' protocol."""
    made: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of one
    return made
