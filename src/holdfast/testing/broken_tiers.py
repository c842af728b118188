"""Hot stores that break what tiers and replicas rest on, for tests to show that they would notice."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any, cast

from holdfast.errors import HoldfastError
from holdfast.model.session import SealedHead, Write
from holdfast.ports.hot import HotStore, TieredHotStore
from holdfast.testing.broken import Around

_LATE = 0.5
_WINDOW = 0.02


class Hasty(Around):
    """It acknowledges a write first, and sends it a little later: whoever dies in between has lied."""

    def __init__(self, store: HotStore) -> None:
        super().__init__(store)
        self._sending: set[asyncio.Task[None]] = set()

    async def write(self, write: Write, **more: Any) -> bool:
        async def send() -> None:
            await asyncio.sleep(_LATE)
            with contextlib.suppress(HoldfastError):
                await self._store.write(write, **more)

        task = asyncio.create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return True


class Careless(Around):
    """It forgets a session that is set to rest, whatever has been written to it since it was copied."""

    async def evict(self, session: str, *, step: int, now: datetime, force: bool = False) -> bool:
        await asyncio.sleep(_WINDOW)
        head = await self._store.head(session)
        return head is not None and bool(await self._tiered.evict(session, step=head.step, now=now, force=True))

    @property
    def _tiered(self) -> TieredHotStore:
        return cast(TieredHotStore, self._store)


class Overwriting(Careless):
    """It puts a session back as the warm tier has it, over one that is there."""

    async def evict(self, session: str, **more: Any) -> bool:
        return await self._tiered.evict(session, **more)

    async def install(self, head: SealedHead, *given: Any, **more: Any) -> bool:
        await asyncio.sleep(_WINDOW)
        there = await self._store.head(head.id)
        if there is not None:
            await self._tiered.evict(head.id, step=there.step, now=datetime.now(UTC), force=True)
        return await self._tiered.install(head, *given, **more)


__all__ = ["Careless", "Hasty", "Overwriting"]
