"""R12, R13: the sweeper sets idle sessions to rest, archives them and ends those that are due, though a tier is slow or
gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.errors import (
    SessionGoneError,
    SessionNotFoundError,
)
from holdfast.model.retention import Retention
from holdfast.model.session import Status, Tier
from holdfast.settings import Settings
from holdfast.testing.broken import Around
from holdfast.testing.clock import ManualClock
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import ANA, ROOT, Apart, around, eventually, flushed, is_hot, log, make, put, rest, sound

HOUR = 3_600.0


async def test_the_sweeper_sets_idle_sessions_to_rest_and_archives_them_later(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, clock: ManualClock
) -> None:
    policy: dict[str, Any] = {"suspend_after": HOUR, "archive_after": 3 * HOUR, "retention": Retention(ttl=None)}
    async with Apart.on(tmp_path / "home", redis, postgres, **policy) as tiers:
        engine, other = await tiers.open(clock=clock), await tiers.open(clock=clock)
        idle, busy = await make(engine), await make(engine)
        await engine.flush(ROOT)
        clock.advance(HOUR - 60)
        assert (await engine.sweep(ROOT)).total == 0
        await put(other, busy, "at work")
        clock.advance(120)
        assert (await other.sweep(ROOT)).rested == 1
        assert [await is_hot(engine, one) for one in (idle, busy)] == [False, True]
        clock.advance(3 * HOUR)
        await engine.sweep(ROOT)
        heads = {one: await engine._journal.warm.head(one) for one in (idle, busy)}
        assert heads[idle].archive is not None  # type: ignore[union-attr]
        assert not await is_hot(engine, busy)
        await engine.sweep(ROOT)
        assert (await engine._journal.warm.head(busy)).archive is not None  # type: ignore[union-attr]
        assert {one.id for one in (await other.find(ANA, tier=Tier.ARCHIVED)).headers} == {idle, busy}
        assert (await other.read(idle, ANA)).header.version == 1
        assert (await other.read(busy, ANA)).header.version == 2
        assert (await engine.sweep(ROOT)).failed == {}
        assert not await sound(engine)


async def test_archive_after_alone_archives_what_is_idle(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, clock: ManualClock
) -> None:
    policy: dict[str, Any] = {"suspend_after": None, "archive_after": HOUR}
    async with Apart.on(tmp_path / "home", redis, postgres, **policy) as tiers:
        engine = await tiers.open(clock=clock)
        idle, busy = [await make(engine, retention=Retention(ttl=None)) for _ in range(2)]
        clock.advance(HOUR - 60)
        assert (await engine.sweep(ROOT)).total == 0
        await put(engine, busy, "at work")
        clock.advance(120)
        assert (await engine.sweep(ROOT)).failed == {}
        assert [await is_hot(engine, one) for one in (idle, busy)] == [False, True]
        assert {one.id for one in (await engine.find(ANA, tier=Tier.ARCHIVED)).headers} == {idle}
        assert (await engine.read(idle, ANA)).header.version == 1  # read, and not written: it goes down again
        clock.advance(2 * HOUR)
        await engine.sweep(ROOT)
        assert {one.id for one in (await engine.find(ANA, tier=Tier.ARCHIVED)).headers} == {idle, busy}
        assert not await sound(engine)


async def test_r13_a_resting_session_is_warned_expires_and_is_purged_in_time(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, clock: ManualClock
) -> None:
    async with Apart.on(tmp_path / "home", redis, postgres, suspend_after=60.0, grace=HOUR) as tiers:
        engine = await tiers.open(clock=clock)
        session = await make(engine, retention=Retention(ttl=10 * HOUR))
        kept = await make(engine, retention=Retention(ttl=None))
        await engine.flush(ROOT)
        for _ in range(9 * 60 + 59):
            clock.advance(60)
            await engine.sweep(ROOT)
        assert not await is_hot(engine, kept)
        assert (await engine.header(session, ANA)).status is Status.DRAFT
        assert [entry.header.operation for entry in await log(engine, session)].count("warn") == 3
        clock.advance(61)
        swept = await engine.sweep(ROOT)
        assert swept.failed == {}
        with pytest.raises(SessionGoneError):
            await engine.read(session, ANA)
        clock.advance(HOUR + 60)
        await engine.sweep(ROOT)
        await _gone(engine, session)
        assert (await engine.read(kept, ANA)).header.version == 1
        assert not await sound(engine)


async def _gone(engine: Engine, session: str) -> None:
    """Of a purged session nothing is in Redis, and a tombstone is in PostgreSQL."""
    assert not await is_hot(engine, session)
    assert not await engine._journal.hot.entries(session, after=0, limit=100)
    head = await engine._journal.warm.head(session)
    assert head is not None
    assert head.key is None
    assert await engine._journal.warm.items(session) is None
    assert all(len(entry.payload) == 32 for entry in await engine._journal.warm.entries(session, after=0, limit=100))
    with pytest.raises(SessionGoneError):
        await engine.read(session, ANA)
    with pytest.raises(SessionNotFoundError):
        await engine.read(session, ANA.__class__("stranger"))
    assert not [key async for key in engine._blobs._cold.keys(f"sessions/{session[:2]}/{session}/")]


@pytest.mark.parametrize("where", ["hot", "resting", "archived"])
async def test_a_discarded_session_leaves_a_tombstone_and_nothing_else(
    where: str, tmp_path: Path, redis: RedisServer, postgres: PostgresServer
) -> None:
    async with Apart.on(tmp_path / "home", redis, postgres, grace=0.0) as tiers:
        engine = await tiers.open()
        session = await make(engine, 30)
        if where == "resting":
            await rest(engine, session)
        elif where == "archived":
            await engine.archive(session, ANA)
        await engine.discard(session, ANA)
        await _gone(engine, session)
        await eventually(lambda: flushed(engine))
        await _gone(engine, session)
        assert not await sound(await tiers.open())
        keys = redis.say("KEYS", f"*{session}*")
        assert keys == b"*0\r\n"


async def test_while_the_cold_tier_is_gone_the_sweeper_does_the_rest_of_its_work(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, clock: ManualClock
) -> None:
    policy: dict[str, Any] = {"suspend_after": 60.0, "archive_after": 600.0}
    async with Apart.on(tmp_path / "home", redis, postgres, **policy) as tiers:
        engine = await tiers.open(clock=clock)
        idle, mortal = (
            await make(engine, retention=Retention(ttl=None)),
            await make(engine, retention=Retention(ttl=700)),
        )
        await rest(engine, idle)
        cold = tiers.home / "cold"
        cold.mkdir(exist_ok=True)
        (cold / "sessions").write_text("no folder")  # nothing can be kept below it
        clock.advance(701)
        swept = await engine.sweep(ROOT)
        assert swept.expired == 1
        assert list(swept.failed) == [idle]
        with pytest.raises(SessionGoneError):
            await engine.read(mortal, ANA)
        assert (await engine.read(idle, ANA)).header.version == 1
        (cold / "sessions").unlink()
        await rest(engine, idle)
        clock.advance(HOUR)
        assert (await engine.sweep(ROOT)).failed == {}
        assert (await engine._journal.warm.head(idle)).archive is not None  # type: ignore[union-attr]


class Stuck(Around):
    """A cold tier that takes nothing until it is told to, and counts how much it is asked to take at a time."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.go_on, self.now, self.most = asyncio.Event(), 0, 0
        self.keys: list[str] = []

    async def put(self, *given: Any, **more: Any) -> None:
        self.keys.append(given[0])
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go_on.wait()
        self.now -= 1
        await self._store.put(*given, **more)  # type: ignore[attr-defined]


@contextlib.contextmanager
def stuck_cold() -> Iterator[list[Stuck]]:
    """Engines opened in this block have cold tiers that take nothing: these."""
    stuck: list[Stuck] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "cold":
            return store
        stuck.append(Stuck(store))
        return stuck[-1]

    with around(wrap):
        yield stuck


async def taken(cold: Stuck, at_once: int) -> bool:
    return cold.most >= at_once


async def expired(engine: Engine, session: str) -> bool:
    head = await engine._journal.hot.head(session)
    return head is None or head.status == "expired"


async def test_r13_a_slow_cold_tier_does_not_delay_what_is_due(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, clock: ManualClock
) -> None:
    policy: dict[str, Any] = {"suspend_after": 60.0, "archive_after": 600.0}
    async with Apart.on(tmp_path / "home", redis, postgres, **policy) as tiers:
        with stuck_cold() as stuck:
            engine = await tiers.open(clock=clock)
        idle = [await make(engine, retention=Retention(ttl=None)) for _ in range(12)]
        for session in idle:
            await rest(engine, session)
        mortal = await make(engine, retention=Retention(ttl=700))
        below = await make(engine, retention=Retention(ttl=700))
        await rest(engine, below)
        clock.advance(701)
        sweeping = asyncio.create_task(engine.sweep(ROOT))
        for session in (mortal, below):
            await eventually(partial(expired, engine, session))
        await eventually(partial(taken, stuck[0], 8))
        await asyncio.sleep(0.2)  # for more of them to come, if there is no bound
        assert not sweeping.done()
        assert stuck[0].most == 8
        later = next(session for session in idle if not any(session in key for key in stuck[0].keys))
        await put(engine, later, "at work after all")
        late = await make(engine, retention=Retention(ttl=10))
        clock.advance(11)
        stuck[0].go_on.set()
        swept = await sweeping
        assert (swept.expired, swept.rested, swept.failed) == (3, 11, {})
        assert await expired(engine, late)
        for session in idle:
            archived = (await engine._journal.warm.head(session)).archive is not None  # type: ignore[union-attr]
            assert archived == (session != later)
        assert not await sound(engine)


async def test_where_the_tiers_are_one_a_slow_cold_tier_does_not_delay_what_is_due(
    settings: Settings, opens: Any, clock: ManualClock
) -> None:
    with stuck_cold() as stuck:
        engine = await opens(replace(settings, archive_after=600.0))
    idle = [await make(engine, retention=Retention(ttl=None)) for _ in range(10)]
    clock.advance(300)  # so that it comes last on the sweeper's list
    mortal = await make(engine, retention=Retention(ttl=700))
    clock.advance(701)
    sweeping = asyncio.create_task(engine.sweep(ROOT))
    await eventually(lambda: expired(engine, mortal))
    await eventually(partial(taken, stuck[0], 8))
    assert not sweeping.done()
    later = next(session for session in idle if not any(session in key for key in stuck[0].keys))
    await put(engine, later, "at work after all")
    stuck[0].go_on.set()
    swept = await sweeping
    assert (swept.expired, swept.rested, swept.failed) == (1, 9, {})
    assert {one.id for one in (await engine.find(ANA, tier=Tier.ARCHIVED)).headers} == {*idle} - {later}


async def test_r12_while_the_warm_tier_is_gone_the_sweeper_goes_on_with_the_hot_one(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, clock: ManualClock
) -> None:
    async with Apart.on(tmp_path / "home", redis, postgres, suspend_after=60.0) as tiers:
        engine = await tiers.open(clock=clock)
        mortal = [await make(engine, retention=Retention(ttl=700)) for _ in range(3)]
        idle = await make(engine, retention=Retention(ttl=None))
        await engine.flush(ROOT)
        clock.advance(701)
        tiers.warm.refuse = True
        tiers.warm.cut()
        swept = await engine.sweep(ROOT)
        assert swept.expired == 3
        assert set(swept.failed) == {"", idle}
        assert [await expired(engine, one) for one in mortal] == [True] * 3
        tiers.warm.heal()
        await asyncio.sleep(2.5)  # until it is asked again
        assert (await engine.sweep(ROOT)).failed == {}
        assert not await is_hot(engine, idle)
