"""R01, R05, R08, R16: a session that rests comes back the same, whoever writes to it or holds a lease meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    HoldfastError,
    LeaseHeldError,
    LeaseLostError,
    LimitExceededError,
    TamperedError,
    VersionConflictError,
)
from holdfast.model.limits import Limits
from holdfast.model.session import Tier
from holdfast.settings import Settings
from holdfast.testing.broken import Around
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import ANA, ROOT, Apart, is_hot, log, make, put, rest, sound


async def test_a_session_that_rested_is_the_same_session(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 50, items=20)
    await engine.label(session, ANA, "good", version=9)
    async with engine.edit(session, ANA, expected=51) as draft:
        draft.delete("chunks/3")
        draft.move("chunks/7", after="chunks/2")
    await engine.undo(session, ANA, expected=52)
    was, entries = await engine.export(session, ANA), await log(engine, session)
    await rest(engine, session)
    for one in (await tiers.open(), engine):
        assert await one.export(session, ANA) == was
        assert await log(one, session) == entries
        assert [label.name for label in await one.labels(session, ANA)] == ["good"]
        assert (await one.read(session, ANA, version=20)).get("chunks/1").body["text"] == "one at 19"  # type: ignore[union-attr]
    assert await is_hot(engine, session)
    assert not await sound(engine)
    await engine.redo(session, ANA, expected=53)
    assert (await engine.read(session, ANA)).get("chunks/3") is None
    assert not await sound(engine)


async def test_a_session_that_the_hot_tier_has_lost_comes_back_from_its_log_alone(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 30)
    await engine.label(session, ANA, "good")
    was = await engine.export(session, ANA)
    await engine.flush(ROOT)
    tiers.redis.say("FLUSHALL")
    other = await tiers.open()
    assert await other.export(session, ANA) == was
    await rest(other, session)
    await put(other, session, "later")
    tiers.redis.say("FLUSHALL")
    assert (await (await tiers.open()).header(session, ANA)).version in (31, 32)


async def test_suspend_and_rehydrate_say_where_a_session_is(tiers: Apart) -> None:
    engine, other = await tiers.open(), await tiers.open()
    session = await make(engine, 3)
    assert (await engine.suspend(session, ANA, change_id="s1")).tier is Tier.DORMANT
    assert not await is_hot(engine, session)
    assert [one.id for one in (await other.find(ANA, tier=Tier.DORMANT)).headers] == [session]
    assert (await other.suspend(session, ANA, change_id="s1")).tier is Tier.DORMANT
    await other.rehydrate(session, ANA)
    assert await is_hot(engine, session)
    await put(other, session, "at work")
    assert (await engine.header(session, ANA)).tier is Tier.ACTIVE
    await other.flush(ROOT)
    assert [one.id for one in (await engine.find(ANA, tier=Tier.ACTIVE)).headers] == [session]


async def test_whoever_follows_a_session_follows_it_through_its_rest(tiers: Apart) -> None:
    engine, other = await tiers.open(), await tiers.open()
    session = await make(engine)
    seen: list[int] = []

    async def follow() -> None:
        async for page in other.follow(session, ANA):
            seen.extend(entry.version for entry in page.entries)
            if len(seen) == 6:
                return

    following = asyncio.create_task(follow())
    for version in range(1, 6):
        await put(engine, session, f"{version}", expected=version)
        await engine._tiering.rest(session)
    await asyncio.wait_for(following, 10)
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_stale_expectation_is_a_conflict_wherever_the_session_is(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 3)
    await rest(engine, session)
    with pytest.raises(VersionConflictError):
        await put(engine, session, "late", expected=2)


async def test_embedded_tiers_have_nothing_to_flush_or_to_rest(settings: Settings, opens: Any) -> None:
    engine = await opens()
    session = await make(engine, 3)
    state = await engine.tiers(ROOT)
    assert (state.tiered, state.flush) == (False, None)
    assert (await engine.flush(ROOT)).flushed == 0
    assert (await engine.suspend(session, ANA)).tier is Tier.DORMANT
    assert await is_hot(engine, session)
    assert (await engine.read(session, ANA)).header.version == 4


async def test_r16_what_redis_has_spoilt_does_not_become_the_warm_copy(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 5)
    was = await engine.export(session, ANA)
    await engine.flush(ROOT)
    redis: Any = engine._journal.hot._store  # type: ignore[attr-defined]
    keys = redis.keys.session(session)
    fields = await redis._redis.ask(keys.tag, b"HGETALL", keys.session)
    items = {name: value for name, value in zip(fields[::2], fields[1::2], strict=True) if name.startswith(b"i:")}
    name, sealed = items.popitem()
    await redis._redis.ask(keys.tag, b"HSET", keys.session, name, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    other = await tiers.open()
    with pytest.raises(TamperedError):
        await other._tiering.rest(session)
    with pytest.raises(TamperedError):
        await other.archive(session, ANA)
    assert await other._journal.warm.items(session) is None
    tiers.redis.say("FLUSHALL")
    assert await (await tiers.open()).export(session, ANA) == was


# -- who writes meanwhile ----------------------------------------------------------------------------------------------


async def test_r01_a_writer_that_races_with_resting_loses_nothing(tiers: Apart) -> None:
    engine, other = await tiers.open(), await tiers.open()
    session = await make(engine)
    told: list[int] = []
    done = False

    async def write() -> None:
        for number in range(150):
            told.append(await put(engine if number % 3 else other, session, f"{number}"))
            if number % 5 == 0:
                await asyncio.sleep(0.02)  # long enough to be set to rest in between

    async def settle() -> int:
        rested = 0
        while not done:
            rested += await other._tiering.rest(session)
            await asyncio.sleep(0.001)
        return rested

    resting = asyncio.create_task(settle())
    await write()
    done = True
    assert await resting > 5
    assert told == list(range(2, 152))
    assert [entry.version for entry in await log(engine, session)] == list(range(1, 152))
    assert not await sound(engine)


class Careless(Around):
    """Broken on purpose: it forgets a session wherever it stands by now."""

    async def evict(self, session: str, *, step: int, **more: Any) -> bool:
        head = await self._store.head(session)
        step = step if head is None else head.step
        return bool(await self._store.evict(session, step=step, **more | {"force": True}))  # type: ignore[attr-defined]


async def test_teeth_a_tier_that_forgets_what_was_just_written_is_caught(tiers: Apart) -> None:
    engine, other = await tiers.open(), await tiers.open(wrap=Careless)
    session = await make(engine)
    done = False

    async def settle() -> None:
        while not done:
            await other._tiering.rest(session)

    resting = asyncio.create_task(settle())
    lost = False
    for number in range(150):
        try:
            lost = await put(engine, session, f"{number}") != number + 2
        except HoldfastError:
            lost = True
        if lost:
            break
    done = True
    await resting
    assert lost


async def test_r05_a_creation_sent_again_once_the_session_rests_gives_that_session(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 2, change_id="new")
    await rest(engine, session)
    again = await (await tiers.open()).create(
        ANA,
        kind="knowledge",
        title="t",
        items=[("chunks/1", {"text": "one 1"}), ("chunks/2", {"text": "one 2"})],
        change_id="new",
    )
    assert (again.header.id, again.header.version) == (session, 3)


async def test_a_quota_counts_sessions_that_rest(tmp_path: Path, redis: RedisServer, postgres: PostgresServer) -> None:
    async with Apart.on(tmp_path / "home", redis, postgres, limits=Limits(sessions=3)) as tiers:
        engine = await tiers.open()
        sessions = [await make(engine) for _ in range(3)]
        for session in sessions:
            await rest(engine, session)
        with pytest.raises(LimitExceededError):
            await make(engine)
        await engine.archive(sessions[0], ANA)
        with pytest.raises(LimitExceededError):
            await make(engine)
        await engine.discard(sessions[1], ANA)
        await make(engine)
        with pytest.raises(LimitExceededError):
            await make(engine)


# -- leases ------------------------------------------------------------------------------------------------------------


async def test_a_session_with_a_live_lease_does_not_rest(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine)
    lease = await engine.lease(session, ANA, "tab")
    assert not await engine._tiering.rest(session)
    for verb in (engine.suspend, engine.archive):
        with pytest.raises(LeaseHeldError):
            await verb(session, ANA)
    await engine.release(lease, ANA)
    await engine.suspend(session, ANA)
    assert not await is_hot(engine, session)


async def test_r08_fences_grow_through_rest_and_loss_and_a_lease_from_before_never_counts_again(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine)
    fences: list[int] = []
    for how in ("rest", "lose", "archive", "rest"):
        lease = await engine.lease(session, ANA, "tab", seconds=0.05)
        fences.append(lease.fence)
        await asyncio.sleep(0.06)
        version = (await engine.header(session, ANA)).version
        if how == "rest":
            await rest(engine, session)
        elif how == "archive":
            await engine.archive(session, ANA)
        else:
            await engine.flush(ROOT)
            tiers.redis.say("FLUSHALL")
        with pytest.raises(LeaseLostError):
            await put(engine, session, "late", expected=version, fence=lease.fence)
        with pytest.raises(LeaseLostError):
            await engine.renew(lease, ANA)
        newer = await engine.lease(session, ANA, "tab")
        fences.append(newer.fence)
        with pytest.raises(LeaseLostError):
            await put(engine, session, "late", expected=version, fence=lease.fence)
        await put(engine, session, "in time", expected=version, fence=newer.fence)
        await engine.release(newer, ANA)
    assert fences == sorted(set(fences))
