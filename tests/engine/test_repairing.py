"""DESIGN 6: ``verify`` with ``repair`` touches what differs and nothing else. How it resolves an older Redis: F09."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import PermissionDeniedError
from holdfast.model.access import Principal
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer, redis_server
from holdfast.testing.tiers import ANA, ROOT, Apart, Idle, log, make, put, sound

OPERATOR = Principal("olga", roles=frozenset({"operator"}))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def tiers(tmp_path: Path, redis: RedisServer, postgres: PostgresServer) -> AsyncIterator[Apart]:
    async with Apart.on(tmp_path / "home", redis, postgres) as tiers:
        yield tiers


async def repaired(engine: Engine, session: str | None = None) -> dict[str, tuple[str, ...]]:
    """What a repair did, by session; all is well afterwards."""
    found = [one async for one in engine.verify(ROOT, session, repair=True)]
    assert all(one.ok for one in found), found
    return {one.session: one.repaired for one in found if one.repaired}


async def test_where_the_warm_tier_is_behind_the_flush_brings_it_on_and_nothing_is_repaired(tiers: Apart) -> None:
    engine = await tiers.open(wrap=Idle)
    hot, resting, cold = await make(engine, 5), await make(engine, 5), await make(engine, 5)
    await engine._tiering.flush(hot)  # the catalogue has it
    await put(engine, hot, "newest", expected=6)
    await engine._tiering.rest(resting)
    await engine.archive(cold, ANA)
    assert await repaired(engine) == {}
    warm = await engine._journal.warm.head(hot)
    assert warm is not None
    assert warm.version == 7
    for session in (hot, resting, cold):
        versions = 7 if session == hot else 6
        assert [entry.version for entry in await log(engine, session)] == list(range(1, versions + 1))


async def test_nothing_is_repaired_where_the_tiers_are_one(opens: Any) -> None:
    engine = await opens()
    session = await make(engine, 5)
    assert await repaired(engine) == {}
    assert await repaired(engine, session) == {}


async def test_to_repair_is_for_an_admin(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine)
    for who in (ANA, OPERATOR):
        with pytest.raises(PermissionDeniedError):
            [one async for one in engine.verify(who, session, repair=True)]


async def test_a_repair_of_one_session_leaves_the_others(tiers: Apart) -> None:
    engine = await tiers.open()
    ours, theirs = await make(engine, 3), await make(engine, 3)
    await engine.flush(ROOT)
    pool = engine._journal.warm._store._pool  # type: ignore[attr-defined]
    for session in (ours, theirs):  # as if the hot tier had come back without its last two steps
        rows = await pool.fetch(pool.sql("SELECT sealed, digest, version FROM {schema}.session WHERE id = $1"), session)
        await put(engine, session, "newer", expected=4)
        await put(engine, session, "newest", expected=5)
        await engine.flush(ROOT)
        await _set_back(engine, session, rows[0])
    other = await tiers.open()
    assert {one.session for one in await sound(other)} == {ours, theirs}
    assert set(await repaired(other, ours)) == {ours}
    assert [one.session for one in await sound(other)] == [theirs]
    assert await put(other, ours, "at work", expected=6) == 7
    assert set(await repaired(other)) == {theirs}
    assert await put(other, theirs, "at work", expected=6) == 7


async def _set_back(engine: Engine, session: str, row: Any) -> None:
    """Let Redis have a session's head as it was."""
    redis = engine._journal.hot._store  # type: ignore[attr-defined]
    keys = redis.keys.session(session)
    sealed, digest, version = row
    fields = (b"step", version, b"version", version, b"digest", digest, b"sealed", sealed)
    await redis._redis.ask(keys.tag, b"HSET", keys.session, *fields)
    for step in (version + 1, version + 2):
        await redis._redis.ask(keys.tag, b"HDEL", keys.log, str(step))
