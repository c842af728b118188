"""One Redis server: what is ready in the same turn of the event loop travels there in one pipeline.

The connections are redis-py's (TLS, authentication, hiredis). Its pool and its retries are not used: by default it
sends a command up to ten times more when a reply is lost, and has executed it each time; here a command goes out once.
A command whose reply is lost fails with ``StoreUnavailableError``: nobody knows whether it was executed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, ResponseError

from holdfast.errors import ConfigurationError, StoreUnavailableError

Argument = bytes | str | int
Command = tuple[Argument, ...]
Dial = Callable[[], Awaitable[Connection]]

_PIPELINE_BYTES = 16_384
"""A server reads so much of a connection at a time, and syncs its file before it reads on. What is beyond goes by the
next lane, to be read in the same round and synced with it: with ``appendfsync always``, 32 commits of 3.4 KB that were
ready at once took six syncs in one pipeline, and two in pipelines of this size (Redis 7.0.15, seen with strace)."""


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
        loop = asyncio.get_running_loop()
        while not self._settled:
            self._waiter = loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        if self._error is not None:
            raise self._error
        return self._answer


class Server:
    """A queue, and lanes that empty it: each lane is one connection with one pipeline under way at a time.

    What comes while all lanes are busy waits for the first that is free, and goes together. It belongs to one event
    loop.
    """

    def __init__(self, name: str, dial: Dial, *, timeout: float, lanes: int) -> None:
        self.name, self._dial, self._timeout = name, dial, timeout
        self._queue: deque[Sent] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._lanes = [asyncio.create_task(self._lane(), name=f"holdfast-{name}-lane") for _ in range(lanes)]
        self._busy = 0
        self._quiet: asyncio.Future[None] | None = None
        self._closed = False

    def send(self, sent: Sent) -> Sent:
        """Send a command with whatever else is ready in this turn."""
        if self._closed:
            sent.settle(None, StoreUnavailableError(self.name, "it is closed"))
            return sent
        self._queue.append(sent)
        if len(self._queue) == 1:  # the lane that is woken runs in the next turn, with all that this one brings
            self._wake()
        return sent

    async def close(self) -> None:
        """Finish what was sent, then let go of the connections; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        while self._queue or self._busy:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    def _wake(self) -> None:
        while self._idle:
            lane = self._idle.popleft()
            if not lane.done():
                lane.set_result(None)
                return

    def _gather(self) -> list[Sent]:
        """The next pipeline; what is left of the queue goes by the next lane that is idle."""
        queue, size = self._queue, 0
        batch: list[Sent] = []
        while queue and (not batch or size + len(queue[0].packed) <= _PIPELINE_BYTES):
            batch.append(queue.popleft())
            size += len(batch[-1].packed)
        if queue:
            self._wake()
        return batch

    async def _lane(self) -> None:
        connection: Connection | None = None
        loop = asyncio.get_running_loop()
        queue = self._queue
        try:
            while True:
                while not queue:
                    waiter = loop.create_future()
                    self._idle.append(waiter)
                    await waiter
                self._busy += 1
                batch = self._gather()
                try:
                    async with asyncio.timeout(self._timeout):
                        if connection is not None and await connection.can_read():
                            await _dropped(connection)  # nothing was asked: it was closed while it lay idle
                            connection = None
                        if connection is None:
                            connection = await self._dial()
                        await self._exchange(connection, batch)
                except BaseException as error:  # whatever it is: nobody is left waiting, and no reply is mixed up
                    self._fail(batch, error, one=connection is not None and isinstance(error, RedisError))
                    await _dropped(connection)
                    connection = None
                    if not isinstance(error, Exception):
                        raise
                finally:
                    self._busy -= 1
                    if self._quiet is not None and not self._quiet.done():
                        self._quiet.set_result(None)
        finally:
            await _dropped(connection)

    async def _exchange(self, connection: Connection, batch: list[Sent]) -> None:
        await connection.send_packed_command([sent.packed for sent in batch], check_health=False)
        read = connection.read_response
        for sent in batch:
            answer, error = None, None
            for _ in range(sent.replies):
                try:
                    answer, error = await read(disable_decoding=True, timeout=math.inf), None
                except ResponseError as refused:  # the server's answer to this one; the next reply is the next one's
                    answer, error = None, refused
            sent.settle(answer, error)

    def _fail(self, batch: list[Sent], error: BaseException, *, one: bool) -> None:
        """What was under way has an unknown outcome. Unless it is the matter of ``one`` connection, what waits behind
        would wait as long again, and fails too.
        """
        ours = error if isinstance(error, StoreUnavailableError) else StoreUnavailableError(self.name, _reason(error))
        failed = batch if one else [*batch, *self._queue]
        if not one:
            self._queue.clear()
        for sent in failed:
            sent.settle(None, ours)


def packed(command: Command) -> bytes:
    """A command in Redis' protocol."""
    made: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of one
    return made


async def _dropped(connection: Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(Exception):
            await connection.disconnect(nowait=True)


def _reason(error: BaseException) -> str:
    """What went wrong, in words that hold no content and no secret."""
    if isinstance(error, ConfigurationError):
        return error.reason
    if isinstance(error, TimeoutError):
        return "no reply in time"
    return type(error).__name__
