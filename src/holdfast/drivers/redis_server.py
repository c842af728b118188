"""One Redis server: what is ready in the same turn of the event loop travels there in one pipeline.

The connections are redis-py's (TLS, authentication), the parser hiredis. redis-py's pool and its retries are not used:
by default it sends a command up to ten times more when a reply is lost, and has executed it each time; here a command
goes out once. A command whose reply is lost fails with ``StoreUnavailableError``: nobody knows whether it was executed.
"""

from __future__ import annotations

import asyncio
from collections import deque

from holdfast.drivers.redis_lane import Argument, Command, Dial, Lane, Sent, packed
from holdfast.errors import ConfigurationError, StoreUnavailableError

__all__ = ["Argument", "Command", "Sent", "Server", "packed"]

_PIPELINE_BYTES = 16_384
"""A server reads so much of a connection at a time, and syncs its file before it reads on. What is beyond goes by the
next lane, to be read in the same round and synced with it: with ``appendfsync always``, 32 commits of 3.4 KB that were
ready at once took six syncs in one pipeline, and two in pipelines of this size (Redis 7.0.15, seen with strace)."""

_GRAIN = 0.001  # seconds: how exact the timers of an event loop are


class Server:
    """A queue, and lanes that empty it: each lane is one connection with one pipeline under way at a time.

    What comes while all lanes are busy waits for the first that is free, and goes together. A lone command goes by the
    lane that was used last. It belongs to one event loop.
    """

    def __init__(self, name: str, dial: Dial, *, timeout: float, lanes: int) -> None:
        self.name, self._dial, self._timeout = name, dial, timeout
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Sent] = deque()
        self._gathering = False
        self._idle: list[Lane] = []  # with a connection each
        self._busy: dict[Lane, float] = {}  # and until when; the first is the first to be late
        self._room = lanes  # for so many more
        self._dialling: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Future[None] | None = None
        self._closed = False
        self._keeping = asyncio.create_task(self._keep(), name=f"holdfast-{name}-lanes")

    def send(self, sent: Sent) -> Sent:
        """Send a command with whatever else is ready in this turn."""
        if self._closed:
            sent.settle(None, StoreUnavailableError(self.name, "it is closed"))
        else:
            self._queue.append(sent)
            self._gather()
        return sent

    async def close(self) -> None:
        """Finish what was sent, then let go of the connections; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        while self._queue or self._busy:
            self._quiet = self._loop.create_future()
            await self._quiet
        self._keeping.cancel()
        await asyncio.gather(self._keeping, *self._dialling, return_exceptions=True)

    async def _keep(self) -> None:
        """Until it is closed; or until its event loop ends, and nobody has closed it."""
        try:
            await self._loop.create_future()
        finally:
            self._closed = True
            for lane in [*self._busy, *self._idle]:
                self.lost(lane, ConnectionAbortedError(), reached=False)
            while self._queue:
                self._queue.popleft().settle(None, StoreUnavailableError(self.name, "it is closed"))
            if self._timer is not None:
                self._timer.cancel()

    # -- lanes -------------------------------------------------------------------------------------------------------

    def done(self, lane: Lane) -> None:
        del self._busy[lane]
        self._idle.append(lane)
        self._go_on()

    def lost(self, lane: Lane, error: BaseException, *, reached: bool) -> None:
        """What was under way has an unknown outcome. Unless it is the matter of one connection, what waits behind would
        wait as long again, and fails too.
        """
        ours = error if isinstance(error, StoreUnavailableError) else StoreUnavailableError(self.name, _reason(error))
        if self._busy.pop(lane, None) is None:
            self._idle.remove(lane)
        self._room += 1
        failed = lane.drop()
        if not reached:
            failed += self._queue
            self._queue.clear()
        for sent in failed:
            sent.settle(None, ours)
        self._go_on()

    def _go_on(self) -> None:
        if self._queue:
            self._gather()
        elif self._quiet is not None and not self._busy and not self._quiet.done():
            self._quiet.set_result(None)

    def _gather(self) -> None:
        """Send what is queued, once this turn has brought all that it brings."""
        if not self._gathering:
            self._gathering = True
            self._loop.call_soon(self._send_all)

    def _send_all(self) -> None:
        self._gathering = False
        queue = self._queue
        while queue and (self._idle or self._room):
            batch = [queue.popleft()]
            size = len(batch[0].packed)
            while queue and (size := size + len(queue[0].packed)) <= _PIPELINE_BYTES:
                batch.append(queue.popleft())
            self._carry(batch)

    def _carry(self, batch: list[Sent]) -> None:
        if self._idle:
            lane = self._idle.pop()
        else:
            lane = Lane(self)
            self._room -= 1
        self._busy[lane] = until = self._loop.time() + self._timeout
        lane.carry(batch, self._dial)
        if lane.dialling is not None:
            self._dialling.add(lane.dialling)
            lane.dialling.add_done_callback(self._dialling.discard)
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._watch)

    def _watch(self) -> None:
        """Give up on the lanes that are late: the time is of a whole exchange, with the dialling."""
        self._timer = None
        now = self._loop.time() + _GRAIN
        for lane in [lane for lane, until in self._busy.items() if until <= now]:
            if lane in self._busy:
                self.lost(lane, TimeoutError(), reached=False)
        if self._busy:
            self._timer = self._loop.call_at(next(iter(self._busy.values())), self._watch)


def _reason(error: BaseException) -> str:
    """What went wrong, in words that hold no content and no secret."""
    if isinstance(error, ConfigurationError):
        return error.reason
    if isinstance(error, TimeoutError):
        return "no reply in time"
    return type(error).__name__
