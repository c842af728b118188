"""What every test of the engine starts from: a home of its own, and engines opened on it as users open them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock

OpenEngine = Callable[..., Awaitable[Engine]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a home that nobody has used."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def clock() -> ManualClock:
    """The clock of every engine of a test; it stands until it is moved."""
    return ManualClock()


@pytest.fixture
async def opens(settings: Settings, clock: ManualClock) -> AsyncIterator[OpenEngine]:
    """Opens an engine, as often as it is called, on the same home; all are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(settings: Settings = settings, **more: Any) -> Engine:
            more.setdefault("clock", clock)
            return await stack.enter_async_context(open_engine(settings, **more))

        yield open_one


@pytest.fixture
async def engine(opens: OpenEngine) -> Engine:
    """An engine on a home that nobody has used."""
    return await opens()
