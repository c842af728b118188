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
from collections.abc import Callable

from holdfast.testing.loopback import Loopback

_PIECE = 65_536


class Proxy(Loopback):
    """Passes bytes on between whoever connects and a server.

    Attributes:
        lost: pieces of replies that were thrown away so far; the server had done what they answer.
        drop: asked for each piece of a reply whether to throw it away, and the connection with it.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._there = (host, port)
        self.refuse = False
        self.delay = 0.0
        self._carrying = asyncio.Event()
        self._carrying.set()
        self.drop: Callable[[bytes], bool] = lambda piece: False
        self.lost = 0
        self._open: set[asyncio.StreamWriter] = set()

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self._open.discard(end)
                    end.transport.abort()

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
