"""R06, R08, R13: sessions go down to rest and come back the same, whoever writes, opens or rotates meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.errors import (
    HoldfastError,
    LeaseHeldError,
    LeaseLostError,
    LimitExceededError,
    SessionGoneError,
    SessionNotFoundError,
    TamperedError,
    VersionConflictError,
)
from holdfast.model.limits import Limits
from holdfast.model.retention import Retention
from holdfast.model.session import Status, Tier
from holdfast.settings import Settings
from holdfast.testing.broken import Around
from holdfast.testing.clock import ManualClock
from holdfast.testing.killing import Stepping
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer, redis_server
from holdfast.testing.tiers import ANA, ROOT, Apart, around, eventually, flushed, log, make, put, sound

HOUR = 3_600.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def tiers(tmp_path: Path, redis: RedisServer, postgres: PostgresServer) -> AsyncIterator[Apart]:
    async with Apart.on(tmp_path / "home", redis, postgres) as tiers:
        yield tiers


async def is_hot(engine: Engine, session: str) -> bool:
    return await engine._journal.hot.head(session) is not None


async def rest(engine: Engine, session: str) -> None:
    """Let a session rest without a step of its own, as the sweeper does."""
    assert await engine._tiering.rest(session)
    assert not await is_hot(engine, session)


# -- down and up -------------------------------------------------------------------------------------------------------


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


async def test_64_who_open_a_resting_session_at_once_bring_it_up_once(tiers: Apart) -> None:
    steps: list[str] = []
    engine = await tiers.open(wrap=lambda store: Stepping(store, "hot", steps.append))
    session = await make(engine, 5)
    await rest(engine, session)
    steps.clear()
    read = await asyncio.gather(*(engine.read(session, ANA) for _ in range(64)))
    assert {one.header.version for one in read} == {6}
    assert steps.count("before hot.install") == 1


async def test_several_processes_that_bring_it_up_at_once_agree(tiers: Apart) -> None:
    engines = [await tiers.open() for _ in range(4)]
    session = await make(engines[0], 3)
    for round_ in range(10):
        await rest(engines[0], session)
        versions = await asyncio.gather(
            *(
                put(engines[n % 4], session, f"{round_} {n}", key=f"chunks/{n}", expected=4 + 8 * round_, rebase=True)
                for n in range(8)
            )
        )
        assert sorted(versions) == list(range(5 + 8 * round_, 13 + 8 * round_))
    assert not await sound(engines[0])


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


# -- the sweeper -------------------------------------------------------------------------------------------------------


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


async def taken(cold: Stuck, at_once: int) -> bool:
    return cold.most >= at_once


async def expired(engine: Engine, session: str) -> bool:
    head = await engine._journal.hot.head(session)
    return head is None or head.status == "expired"


async def test_r13_a_slow_cold_tier_does_not_delay_what_is_due(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, clock: ManualClock
) -> None:
    stuck: list[Stuck] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "cold":
            return store
        stuck.append(Stuck(store))
        return stuck[-1]

    policy: dict[str, Any] = {"suspend_after": 60.0, "archive_after": 600.0}
    async with Apart.on(tmp_path / "home", redis, postgres, **policy) as tiers:
        with around(wrap):
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
    stuck: list[Stuck] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "cold":
            return store
        stuck.append(Stuck(store))
        return stuck[-1]

    with around(wrap):
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


# -- keys --------------------------------------------------------------------------------------------------------------


class Slow(Around):
    """Brings a session up as slowly as it is told."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def install(self, *given: Any, **more: Any) -> bool:
        self.begun.set()
        await self.go_on.wait()
        return bool(await self._store.install(*given, **more))  # type: ignore[attr-defined]


async def test_keys_rotated_while_a_session_comes_up_are_rotated_for_it_too(tiers: Apart) -> None:
    slow: list[Slow] = []

    def wrap(store: Any) -> Any:
        slow.append(Slow(store))
        return slow[0]

    engine, other = await tiers.open(wrap=wrap), await tiers.open()
    session = await make(other, 3)
    resting = await make(other)
    for one in (session, resting):
        await rest(other, one)
    reading = asyncio.create_task(engine.read(session, ANA))
    await slow[0].begun.wait()
    rotated = await other.rotate_keys(ROOT, drop=True)
    assert rotated.dropped
    slow[0].go_on.set()
    assert (await reading).header.version == 4
    third = await tiers.open()
    for one, version in ((session, 4), (resting, 1)):
        assert (await third.read(one, ANA)).header.version == version
        await put(third, one, "later", expected=version)
    assert not await sound(third)


async def test_a_session_archived_while_another_process_brings_it_up_keeps_its_log(tiers: Apart) -> None:
    slow: list[Slow] = []

    def wrap(store: Any) -> Any:
        slow.append(Slow(store))
        return slow[0]

    engine, other = await tiers.open(wrap=wrap), await tiers.open()
    session = await make(other, 60)
    await rest(other, session)
    reading = asyncio.create_task(engine.read(session, ANA))
    await slow[0].begun.wait()
    await other._tiering.archive(session)
    slow[0].go_on.set()
    assert (await reading).header.version == 61
    assert [entry.version for entry in await log(engine, session)] == list(range(1, 62))
    await put(engine, session, "later", expected=61)
    assert not await sound(engine)


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
    assert await engine.flush(ROOT) == 0
    assert (await engine.suspend(session, ANA)).tier is Tier.DORMANT
    assert await is_hot(engine, session)
    assert (await engine.read(session, ANA)).header.version == 4
