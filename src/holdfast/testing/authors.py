"""Authors on a hot store that may not answer, and what has become of what they were told."""

from __future__ import annotations

import asyncio
from collections import Counter

from holdfast.errors import StoreUnavailableError
from holdfast.ports.hot import HotStore
from holdfast.testing.samples import NOW, write_at

PAUSE = 0.01
"""Seconds between two questions to a store that does not answer."""


class Author:
    """Commits to a session of its own, one change after the other, and sends a change until it knows what became of it.

    Attributes:
        told: the changes it was told of that they landed, in order.
    """

    def __init__(self, store: HotStore, name: str) -> None:
        self.store, self.name = store, name
        self.told: list[str] = []

    async def create(self) -> None:
        assert await self.store.write(write_at(self.name, 1), now=NOW)

    async def commit(self, change: str) -> None:
        """Make one change. Whenever the outcome is unknown, it is sent again on top of what is there now."""
        while True:
            try:
                head = await self.store.head(self.name)
                assert head is not None
                write = write_at(self.name, head.step + 1, change, items=[change.encode()])
                if not await self.store.write(write, now=NOW):
                    assert await self.store.change(self.name, change) is not None
            except StoreUnavailableError:
                await asyncio.sleep(PAUSE)
                continue
            self.told.append(change)
            return

    async def send(self, change: str) -> None:
        """Make one change, sent once: an outcome that is unknown stays so."""
        try:
            head = await self.store.head(self.name)
            assert head is not None
            if await self.store.write(write_at(self.name, head.step + 1, change, items=[change.encode()]), now=NOW):
                self.told.append(change)
        except StoreUnavailableError:
            await asyncio.sleep(PAUSE)


async def effects(store: HotStore, author: Author) -> Counter[str]:
    """How often each change of an author had its effect, as the log has it; the log, the head and the items agree."""
    log = await store.entries(author.name, after=1, limit=1_000_000)
    assert [entry.step for entry in log] == list(range(2, len(log) + 2))
    loaded = await store.load(author.name)
    assert loaded is not None
    assert loaded[0].step == len(log) + 1
    assert {item.id.decode() for item in loaded[1]} == {entry.change for entry in log}
    return Counter(entry.change for entry in log)
