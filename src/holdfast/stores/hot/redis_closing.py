"""Closing a store: the writes that are under way, which may take several scripts each, are finished first."""

from __future__ import annotations

import asyncio

from holdfast.errors import StoreUnavailableError


class Writes:
    """Entered by every write of a store."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        self._quiet: asyncio.Future[None] | None = None

    def __enter__(self) -> None:
        if self._closed:
            raise StoreUnavailableError("hot", "it is closed")
        self._inside += 1

    def __exit__(self, *raised: object) -> None:
        self._inside -= 1
        if not self._inside and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    async def close(self) -> None:
        self._closed = True
        while self._inside:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet
