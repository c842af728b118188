"""R11: a list that is made while Redis is gone comes from PostgreSQL, and is marked as a single read is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.client import Client
from holdfast.engine.engine import Engine
from holdfast.engine.tiering import Tiering
from holdfast.settings import Settings
from holdfast.testing.front import ADMIN, ANA, Front, opened
from holdfast.testing.issuer import Issuer
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer

WITHIN = 2.0
"""Seconds within which five lists are there; R11 promises 1 for each."""
TIMEOUT = 5
"""Seconds a reply of Redis may take: more than by default, for a disk that others keep busy."""


@pytest.fixture
async def apart(
    believing: Settings, issuer: Issuer, redis: RedisServer, postgres: PostgresServer
) -> AsyncIterator[tuple[Front, RedisServer]]:
    """A service whose tiers are apart, with one session that is flushed."""
    hot = f"{redis.url}?prefix=lists&timeout={TIMEOUT}"
    async with opened(replace(believing, hot=hot, warm=postgres.fresh_url()), issuer) as front:
        await front.make()
        await front.engine.flush(ADMIN)
        yield front, redis


async def listed(front: Front, **query: Any) -> tuple[dict[str, Any], str | None]:
    """A list, and whether its answer says that it is stale."""
    answer = await (await front.client(ANA)).get("/v1/sessions", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json(), answer.headers.get("holdfast-stale")


async def check_marked(front: Front, redis: RedisServer) -> None:
    """A list is marked while Redis is gone, also an empty one, and not before or after."""
    fresh, marked = await listed(front)
    assert (fresh["stale"], [one["stale"] for one in fresh["sessions"]], marked) == (False, [False], None)
    redis.kill()
    begun = time.monotonic()
    for _ in range(5):  # the breaker opens meanwhile
        gone, marked = await listed(front)
        assert marked == "true"
        assert gone == {**fresh, "stale": True, "sessions": [{**one, "stale": True} for one in fresh["sessions"]]}
    assert time.monotonic() - begun < WITHIN
    none, marked = await listed(front, text="nothing has this title")
    assert (none["sessions"], none["stale"], marked) == ([], True, "true")
    assert "holdfast-stale" not in (await (await front.client(ANA)).get("/v1/whoami")).headers
    redis.start()
    async with asyncio.timeout(10):
        while (await listed(front))[1] is not None:
            await asyncio.sleep(0.05)
    assert (await listed(front))[0] == fresh


async def test_r11_a_list_made_while_redis_is_gone_is_marked_as_stale(apart: tuple[Front, RedisServer]) -> None:
    await check_marked(*apart)


async def test_r11_a_redis_that_hangs_holds_a_list_up_for_its_timeout_alone(apart: tuple[Front, RedisServer]) -> None:
    """As it does a single read."""
    front, redis = apart
    redis.pause()
    begun = time.monotonic()
    assert (await listed(front))[1] == "true"
    assert time.monotonic() - begun < TIMEOUT + WITHIN


async def test_the_client_and_the_engine_tell_it_too(apart: tuple[Front, RedisServer]) -> None:
    front, redis = apart
    engine: Engine = front.engine
    async with front.listening() as url, Client(url, token=front.token(ANA)) as client:
        assert not (await client.find()).stale
        redis.kill()
        for page in (await client.find(), await engine.find(ANA)):
            assert page.stale
            assert [header.stale for header in page.headers] == [True]


async def test_teeth_a_service_that_does_not_ask_the_hot_tier_would_be_caught(
    apart: tuple[Front, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trusting(self: Tiering) -> bool:
        return True

    monkeypatch.setattr(Tiering, "answers", trusting)
    with pytest.raises(AssertionError):
        await check_marked(*apart)
