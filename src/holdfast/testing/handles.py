"""Handles on a store: what every suite of a tier starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isawaitable
from typing import Generic, Protocol, TypeVar

import pytest


class Closing(Protocol):
    """What can be closed: a store of any tier, a sink."""

    async def close(self) -> None: ...


Store = TypeVar("Store", bound=Closing)
Connecting = Callable[[], Store | Awaitable[Store]]


class Handles(Generic[Store]):
    """Subclass it and give ``connect``: called twice, it gives two handles on the same, at first empty, data."""

    @pytest.fixture
    def connect(self) -> Connecting[Store]:
        raise NotImplementedError("the binding of the suite gives `connect`")

    @pytest.fixture
    async def stores(self, connect: Connecting[Store]) -> AsyncIterator[tuple[Store, Store]]:
        pair = (await opened(connect), await opened(connect))
        yield pair
        for store in pair:
            await store.close()


async def opened(connect: Connecting[Store]) -> Store:
    """One more handle; ``connect`` may give it at once or to be awaited."""
    store = connect()
    return await store if isawaitable(store) else store
