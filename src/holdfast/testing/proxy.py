"""A TCP proxy that misbehaves on demand: between a store and its server, or between any other two.

It knows nothing of what it carries. Faults can be changed while connections are open:

* ``refuse``: new connections are closed at once;
* ``hole``: nothing is carried any more in either direction, and nothing is closed (a black hole);
* ``delay``: seconds by which each piece is late, each way;
* ``drop``: a piece of a reply is taken from the server and thrown away, and the connection with it: what was asked has
  been done, and nobody learns of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

_PIECE = 65_536


class Proxy:
    """Passes bytes on between whoever connects and a server.

    Attributes:
        lost: pieces of replies that were thrown away so far; the server had done what they answer.
        drop: asked for each piece of a reply whether to throw it away, and the connection with it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self.refuse = False
        self.delay = 0.0
        self._carrying = asyncio.Event()
        self._carrying.set()
        self.drop: Callable[[bytes], bool] = lambda piece: False
        self.lost = 0
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Reset every connection there is."""
        for writer in [*self._open]:
            writer.transport.abort()

    @property
    def hole(self) -> bool:
        return not self._carrying.is_set()

    @hole.setter
    def hole(self, swallowing: bool) -> None:
        if swallowing:
            self._carrying.clear()
        else:
            self._carrying.set()

    def heal(self) -> None:
        """No more faults; what a black hole has swallowed stays swallowed, so its connections are cut."""
        if self.hole:
            self.cut()
        self.refuse = self.hole = False
        self.delay = 0.0
        self.drop = lambda piece: False

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        """Listen on a free port for the length of a block."""
        server = await asyncio.start_server(self._taken, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in [*self._tasks]:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if not self.refuse:
                there, upstream = await asyncio.open_connection(*self._there)
                self._open.add(upstream)
                ways = (
                    asyncio.create_task(self._carry(reader, upstream, replies=False)),
                    asyncio.create_task(self._carry(there, writer, replies=True)),
                )
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):  # a task of a stream server has nobody to tell
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self._open.discard(end)
                    end.transport.abort()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        while piece := await reader.read(_PIECE):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._carrying.wait()
            if replies and self.drop(piece):
                self.lost += 1
                return
            writer.write(piece)
            await writer.drain()
