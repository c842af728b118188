"""Group commit for a server that is spoken to from the event loop: what is ready together goes together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Protocol, TypeVar

from holdfast.errors import StoreUnavailableError

T = TypeVar("T")


class Batched(Protocol):
    """What goes in a batch: at most one job of a key in each, and some ``size`` bytes of all."""

    @property
    def key(self) -> str: ...

    @property
    def size(self) -> int: ...


J = TypeVar("J", bound=Batched)
Send = Callable[[list[J]], Awaitable[Mapping[str, BaseException]]]


class Batches(Generic[J]):
    """Jobs that were put in one turn of the event loop, or while a batch was on its way, are the next batch.

    Jobs of one key are sent in the order they were put. One batch is on its way at a time.

    Args:
        name: of the store, for messages.
        send: sends a batch, and returns what went wrong by key; what it raises went wrong with all of it.
        most: how many jobs are one batch at most.
        room: end a batch with the job that brings it to so many bytes.
    """

    def __init__(self, name: str, send: Send[J], *, most: int, room: int) -> None:
        self._name, self._send, self._most, self._room = name, send, most, room
        self._waiting: list[tuple[J, asyncio.Future[None]]] = []
        self._running: asyncio.Task[None] | None = None

    async def put(self, job: J) -> None:
        """Send a job; a caller that is cancelled waits for the outcome, and then the cancellation goes on."""
        sent = asyncio.get_running_loop().create_future()
        self._waiting.append((job, sent))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="holdfast-batches")
        await outcome(sent)

    async def close(self) -> None:
        """Wait for what was sent."""
        while self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        batch: list[tuple[J, asyncio.Future[None]]] = []
        try:
            while self._waiting:
                batch = self._next()
                try:
                    wrong = await self._send([job for job, _ in batch])
                except Exception as error:
                    wrong = {job.key: error for job, _ in batch}
                for job, sent in batch:
                    if job.key in wrong:
                        sent.set_exception(wrong[job.key])
                    else:
                        sent.set_result(None)
        finally:
            for _, sent in (*batch, *self._waiting):  # where the loop is torn down: nobody is left to wait for ever
                if not sent.done():
                    sent.set_exception(StoreUnavailableError(self._name, "it was stopped"))
            self._running = None

    def _next(self) -> list[tuple[J, asyncio.Future[None]]]:
        batch: list[tuple[J, asyncio.Future[None]]] = []
        keys, size = set[str](), 0
        rest: list[tuple[J, asyncio.Future[None]]] = []
        for job, sent in self._waiting:
            if job.key in keys or len(batch) >= self._most or size >= self._room:
                rest.append((job, sent))
            else:
                batch.append((job, sent))
                size += job.size
            keys.add(job.key)  # of one that was passed over too: none of its key overtakes it
        self._waiting = rest
        return batch


async def outcome(sent: asyncio.Future[T]) -> T:
    """What comes of something that was sent. Who is cancelled waits for it too, and then the cancellation goes on."""
    cancelled: asyncio.CancelledError | None = None
    while not sent.done():
        try:
            await asyncio.wait([sent])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not sent.cancelled():
            sent.exception()  # looked at, so that the loop does not complain
        raise cancelled
    return sent.result()
