"""What the tests of who asks start from: a clock to set, and an authenticator opened as the service opens it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.service.auth.authenticator import authenticator
from holdfast.service.auth.caller import Authenticator
from holdfast.settings import Settings
from holdfast.testing.issuer import Issuer


class Instant:
    """A clock that stands still until it is moved; it begins at the wall clock's time, for revocations go by that."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


Opens = Callable[..., Awaitable[Authenticator]]


@pytest.fixture
def instant() -> Instant:
    return Instant()


@pytest.fixture
async def believes(tmp_path: Path, settings: Settings, engine: Engine, instant: Instant) -> AsyncIterator[Opens]:
    """Opens an authenticator that believes an issuer; its settings can be given, and another engine."""
    async with AsyncExitStack() as stack:

        async def open_one(issuer: Issuer, engine: Engine = engine, **auth: Any) -> Authenticator:
            where = issuer.publish(tmp_path / f"{issuer.name.rpartition('/')[2]}.json")
            made = authenticator(replace(settings, auth=issuer.auth(where, **auth)), engine, now=instant)
            await made.open()
            stack.push_async_callback(made.close)
            return made

        yield open_one
