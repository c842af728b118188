"""Handles on a hot store, and what its suites do with them again and again."""

from __future__ import annotations

from typing import Any

from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead, SealedItem
from holdfast.ports.hot import HotStore
from holdfast.testing.handles import Connecting, Handles
from holdfast.testing.samples import NOW, later, write_at

Connect = Connecting[HotStore]
Pair = tuple[HotStore, HotStore]
HotHandles = Handles[HotStore]


async def build(store: HotStore, steps: int, *, session: str = "s", **head: Any) -> None:
    """Bring a session to a step, each of them a commit that writes one item."""
    for step in range(1, steps + 1):
        assert await store.write(write_at(session, step, items=[b"i"], **head), now=NOW)


async def items_of(store: HotStore, session: str = "s") -> dict[bytes, int]:
    """The versions of a session's items by id."""
    loaded = await store.load(session)
    assert loaded is not None
    return {item.id: item.version for item in loaded[1]}


Everything = tuple[SealedHead, set[SealedItem], list[SealedEntry], list[str]]


async def everything(store: HotStore, session: str = "s") -> Everything:
    """All there is to see of a session, and what is due."""
    loaded = await store.load(session)
    assert loaded is not None
    log = await store.entries(session, after=0, limit=1_000_000)
    return loaded[0], set(loaded[1]), log, await store.due(now=later(10**9), limit=1_000)
