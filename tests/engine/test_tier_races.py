"""What comes between two steps of a move between tiers: each was a loss before it was a test."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.errors import (
    ConfigurationError,
    StoreFullError,
    StoreUnavailableError,
    TamperedError,
    UnavailableError,
    VersionConflictError,
)
from holdfast.model.access import Role
from holdfast.model.session import Write
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.broken import Around
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import redis_server
from holdfast.testing.tiers import ANA, BEN, ROOT, Apart, Idle, around, make, put, sound


class Held(Around):
    """A store that stops before or after a verb, once, until it is let go."""

    def __init__(self, store: Any, verb: str, *, after: bool = False) -> None:
        super().__init__(store)
        self._verb, self._after, self.armed = verb, after, False
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        return verb if name != self._verb else self._held(verb)

    def _held(self, verb: Any) -> Any:
        async def ask(*given: Any, **named: Any) -> Any:
            answer = await verb(*given, **named) if self._after else None
            if self.armed:
                self.armed = False
                self.reached.set()
                await self.go.wait()
            return answer if self._after else await verb(*given, **named)

        return ask


async def test_r01_a_write_that_the_hot_tier_loses_at_once_is_not_called_warm(tiers: Apart) -> None:
    stores: list[RedisHotStore] = []

    class Losing(Around):
        """Redis comes back as it was before a write, right after it said that it had landed."""

        losing = False

        async def write(self, write: Write, **more: Any) -> bool:
            keys = stores[0].keys.session(write.head.id)
            before = await stores[0]._redis.ask(keys.tag, b"DUMP", keys.session) if self.losing else None
            log = await stores[0]._redis.ask(keys.tag, b"DUMP", keys.log) if self.losing else None
            landed = await self._store.write(write, **more)
            if self.losing:
                self.losing = False
                for key, was in ((keys.session, before), (keys.log, log)):
                    await stores[0]._redis.ask(keys.tag, b"RESTORE", key, 0, was or b"", b"REPLACE")
            return landed

    losing: list[Losing] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "hot":
            return store
        stores.append(store)
        losing.append(Losing(store))
        return losing[-1]

    with around(wrap):
        engine = await tiers.open(settings=replace(tiers.direct, acknowledge="warm"))
    session = await make(engine)
    losing[0].losing = True
    with pytest.raises(StoreUnavailableError):
        await put(engine, session, "said to be warm", expected=1)
    assert await put(engine, session, "again", expected=1) == 2
    assert not await sound(engine)


async def test_r09_an_installer_that_comes_late_to_an_emptied_hot_tier_installs_nothing_older(tiers: Apart) -> None:
    held: list[Held] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "hot":
            return store
        held.append(Held(store, "install"))
        return held[-1]

    engine = await tiers.open(proxied=False)
    with around(wrap):
        late = await tiers.open(proxied=False)
    session = await make(engine)
    await engine.suspend(session, ANA)
    held[0].armed = True
    reading = asyncio.create_task(late.read(session, ANA))
    await held[0].reached.wait()
    assert await put(engine, session, "acknowledged", expected=1) == 2
    await engine.flush(ROOT)
    tiers.redis.say("FLUSHALL")
    held[0].go.set()
    assert (await reading).header.version == 2
    with pytest.raises(VersionConflictError):
        await put(late, session, "on what is older", expected=1)
    assert not await sound(late)


async def test_a_session_made_while_keys_are_rotated_and_dropped_opens_after_its_rest(tiers: Apart) -> None:
    before: list[Held] = []
    after: list[Held] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "hot":
            return store
        before.append(Held(Idle(store), "write"))
        after.append(Held(before[-1], "write", after=True))
        return after[-1]

    with around(wrap):
        making = await tiers.open(proxied=False)
    other = await tiers.open(proxied=False)
    await make(other)
    before[0].armed = True
    made = asyncio.create_task(make(making))
    await before[0].reached.wait()
    assert not (await other.rotate_keys(ROOT, drop=True)).failed
    after[0].armed = True
    before[0].go.set()
    await after[0].reached.wait()  # it has landed under a key that is gone, and its maker has not looked yet
    await other._flushing.drain()  # type: ignore[union-attr]
    after[0].go.set()
    session = await made
    await making.suspend(session, ANA)
    for engine in (making, other):
        assert (await engine.read(session, ANA)).header.version == 1
    assert not await sound(other)


async def test_who_is_granted_again_lists_the_session_whatever_two_flushers_bring(tiers: Apart) -> None:
    held: list[Held] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier == "hot":
            return Idle(store)
        if tier != "warm":
            return store
        held.append(Held(store, "append"))
        return held[-1]

    with around(wrap):
        one, other = await tiers.open(proxied=False), await tiers.open(proxied=False)
    session = await make(one)
    await one.grant(session, ANA, "ben", Role.EDITOR)
    await one.flush(ROOT)
    assert one._flushing is not None
    assert other._flushing is not None
    await one._flushing.session(session)
    flights = []
    for store, flushing, role in ((held[0], one._flushing, None), (held[1], other._flushing, Role.EDITOR)):
        await one.grant(session, ANA, "ben", role)
        store.armed = True
        flights.append(asyncio.create_task(flushing.session(session)))
        await store.reached.wait()
    for store, flight in zip(held, flights, strict=True):
        store.go.set()
        await flight
    assert [header.id for header in (await other.find(BEN)).headers] == [session]


async def test_a_hot_tier_that_is_emptied_under_writers_costs_what_was_not_flushed_and_no_session(tiers: Apart) -> None:
    """F09: what comes back from the warm tier is another history, which reaches the steps of the old one again: whoever
    remembers the old one must not write on top of it.
    """
    one, other = await tiers.open(proxied=False), await tiers.open(proxied=False)
    session = await make(one, 3)
    await one.flush(ROOT)
    kept = (await one.header(session, ANA)).version

    async def write(engine: Any, name: str, until: asyncio.Event) -> None:
        count = 0
        while not until.is_set():
            count += 1
            try:
                async with engine.edit(session, ANA, expected=(await engine.header(session, ANA)).version) as draft:
                    draft.put("chunks/1", {"text": f"{name} {count}"})
            except (VersionConflictError, UnavailableError):
                pass
            except TamperedError:  # for a moment, to who reads the log of the one history while the other begins
                seen.append(name)

    seen: list[str] = []
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for engine, name in ((one, "a"), (one, "b"), (other, "c"), (other, "d")):
            group.create_task(write(engine, name, over))
        for _ in range(6):
            await asyncio.sleep(0.15)
            tiers.redis.say("FLUSHALL")
        await asyncio.sleep(0.15)
        over.set()
    assert (await other.read(session, ANA)).header.version >= kept
    assert not await sound(other, repair=True)
    assert not await sound(one)
    assert await put(one, session, "and on it goes") > kept


async def test_f10_a_session_leaves_a_hot_tier_that_is_full(tmp_path: Path, postgres: PostgresServer) -> None:
    with redis_server(tmp_path / "redis") as full:
        async with Apart.on(tmp_path / "home", full, postgres) as tiers:
            engine = await tiers.open(proxied=False)
            session = await make(engine)
            full.say("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StoreFullError):
                await put(engine, session, "no room", expected=1)
            await engine.suspend(session, ANA)
            assert (await engine.tiers(ROOT)).hot.sessions == 0  # type: ignore[union-attr]
            full.say("CONFIG", "SET", "maxmemory", "0")
            assert await put(engine, session, "there is room", expected=1) == 2
            assert not await sound(engine)


async def test_a_process_with_another_warm_tier_is_refused_before_it_takes_anything_off_the_queue(
    tiers: Apart, postgres: PostgresServer
) -> None:
    engine = await tiers.open(proxied=False)
    session = await make(engine)
    for warm in (f"sqlite://{tiers.home / 'forgotten.sqlite'}", postgres.fresh_url()):
        with pytest.raises(ConfigurationError, match="another warm tier"):
            await tiers.open(settings=replace(tiers.direct, warm=warm))
    assert await put(engine, session, "flushed where all flush", expected=1) == 2
    assert not await sound(engine)


async def test_of_two_sweepers_that_purge_neither_lets_an_older_state_come_back(tiers: Apart) -> None:
    engine, other = [await tiers.open(proxied=False) for _ in range(2)]
    session = await make(engine)
    store: Any = engine._journal.hot
    head, items = await store.load(session)
    entries = await store.entries(session, after=0, limit=10)
    await engine.discard(session, ANA)
    await engine.sweep(ROOT)
    purged = await engine._journal.open(session)
    for one in (engine, other):
        await one._tiering.purge(purged)
    assert await store.install(head, items, entries, changes={}, fence=0) is False


async def test_an_installer_that_comes_too_late_does_not_let_an_older_state_come_back(tiers: Apart) -> None:
    installing: list[Held] = []
    evicting: list[Held] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "hot":
            return store
        installing.append(Held(store, "install", after=True))
        evicting.append(Held(installing[0], "evict", after=True))
        return evicting[0]

    engine = await tiers.open(proxied=False)
    with around(wrap):
        late = await tiers.open(proxied=False)
    store: Any = engine._journal.hot
    session = await make(engine)
    head, items = await store.load(session)
    entries = await store.entries(session, after=0, limit=10)
    await engine.suspend(session, ANA)
    installing[0].armed = evicting[0].armed = True
    reading = asyncio.create_task(late.read(session, ANA))
    await installing[0].reached.wait()
    await put(engine, session, "acknowledged", expected=1)
    await engine.suspend(session, ANA)
    installing[0].go.set()
    await evicting[0].reached.wait()
    assert await store.install(head, items, entries, changes={}, fence=0) is False
    evicting[0].go.set()
    assert (await reading).header.version == 2


async def test_a_session_that_is_set_to_rest_while_it_is_opened_is_not_called_tampered(tiers: Apart) -> None:
    before: list[Held] = []
    after: list[Held] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "hot":
            return store
        before.append(Held(Idle(store), "entries"))
        after.append(Held(before[-1], "entries", after=True))
        return after[-1]

    engine = await tiers.open(proxied=False)
    with around(wrap):
        late = await tiers.open(proxied=False)
    session = await make(engine)
    before[0].armed = after[0].armed = True
    reading = asyncio.create_task(late.read(session, ANA))
    await before[0].reached.wait()
    await put(engine, session, "acknowledged", expected=1)
    before[0].go.set()
    await after[0].reached.wait()
    await engine.suspend(session, ANA)
    after[0].go.set()
    assert (await reading).header.version == 2


async def test_r05_a_session_that_is_archived_while_it_is_brought_up_keeps_its_change_ids(tiers: Apart) -> None:
    held: list[Held] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "warm":
            return store
        held.append(Held(store, "changes"))
        return held[-1]

    engine = await tiers.open(proxied=False)
    with around(wrap):
        late = await tiers.open(proxied=False)
    session = await make(engine, 40)
    assert await put(engine, session, "once", key="chunks/9", change_id="the-id", expected=41) == 42
    for version in range(42, 72):
        await put(engine, session, f"at {version}", expected=version)
    assert await engine._tiering.rest(session)
    held[0].armed = True
    reading = asyncio.create_task(late.read(session, ANA))
    await held[0].reached.wait()
    await engine.archive(session, ANA)
    held[0].go.set()
    assert (await reading).header.version == 72
    for expected in (41, 72):
        assert await put(late, session, "once", key="chunks/9", change_id="the-id", expected=expected) == 42
    assert not await sound(engine)
