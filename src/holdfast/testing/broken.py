"""Hot stores that are broken on purpose, for tests to show that they would notice: ``open_engine(wrap=Unchecked)``."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead, Write
from holdfast.ports.hot import HotStore


class Around:
    """A store within, and nothing wrong with it."""

    def __init__(self, store: HotStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Unchecked(Around):
    """With the compare off: a write that found the session elsewhere is called a success."""

    async def write(self, write: Write, **more: Any) -> bool:
        await self._store.write(write, **more)
        return True


class Trusting(Around):
    """It takes a head that it read itself for the newest, for a twentieth of a second."""

    def __init__(self, store: HotStore) -> None:
        super().__init__(store)
        self._heads: dict[str, tuple[float, SealedHead]] = {}

    async def head(self, session: str) -> SealedHead | None:
        at, head = self._heads.get(session, (0.0, None))
        if head is not None and time.monotonic() - at < 0.05:
            return head
        head = await self._store.head(session)
        if head is not None:
            self._heads[session] = (time.monotonic(), head)
        return head

    async def write(self, write: Write, **more: Any) -> bool:
        self._heads.pop(write.head.id, None)
        return await self._store.write(write, **more)


class Forgetful(Around):
    """It knows no change id again."""

    async def change(self, session: str, change: str) -> SealedEntry | None:
        return None


class Eager(Around):
    """It acknowledges before the write has returned. Nobody notices, unless it is killed: all that comes after waits
    for the write.
    """

    _late: asyncio.Task[bool] | None = None

    async def write(self, write: Write, **more: Any) -> bool:
        if self._late is not None:
            await self._late
        self._late = asyncio.create_task(self._store.write(write, **more))
        return True

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def later(*args: Any, **kwargs: Any) -> Any:
            if self._late is not None:
                await self._late
            return await method(*args, **kwargs)

        return later


__all__ = ["Around", "Eager", "Forgetful", "Trusting", "Unchecked"]
