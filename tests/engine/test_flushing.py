"""R10, R05, F11: what has landed in Redis comes to PostgreSQL whole and once, and nothing is let go of before."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.engine.rehydrating import KEEP_ENTRIES
from holdfast.errors import ChangeIdReusedError, StoreUnavailableError
from holdfast.model.access import Role
from holdfast.ports.hot import Queued
from holdfast.testing.broken import Around
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import (
    ANA,
    BEN,
    ROOT,
    Apart,
    Early,
    Idle,
    around,
    eventually,
    flushed,
    log,
    make,
    put,
    sound,
    stepping,
)


async def waiting(engine: Engine) -> int:
    flush = (await engine.tiers(ROOT)).flush
    assert flush is not None
    return flush.entries


async def seen(engine: Engine) -> list[str]:
    return [header.id for header in (await engine.find(ANA)).headers]


# -- from hot to warm --------------------------------------------------------------------------------------------------


async def test_what_is_written_comes_to_the_warm_tier_by_itself(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 5)
    took = await eventually(lambda: flushed(engine))
    assert took < 2
    warm = await engine._journal.warm.head(session)
    assert warm is not None
    assert warm.version == 6
    assert await seen(engine) == [session]
    assert not await sound(engine)


async def test_r10_an_entry_is_acknowledged_only_after_the_warm_tier_has_committed_it(tiers: Apart) -> None:
    steps: list[str] = []
    with stepping(steps.append):
        engine = await tiers.open()
    await make(engine)
    await eventually(lambda: flushed(engine))
    assert steps.index("after warm.append") < steps.index("before hot.acknowledge")


async def test_r10_what_the_warm_tier_has_refused_stays_on_the_queue(tiers: Apart) -> None:
    engine = await tiers.open()
    tiers.warm.refuse = True
    tiers.warm.cut()
    session = await make(engine, 3)
    await asyncio.sleep(0.5)
    assert await waiting(engine) == 4
    tiers.warm.heal()
    await eventually(lambda: flushed(engine))
    assert [entry.version for entry in await log(engine, session)] == [1, 2, 3, 4]
    assert not await sound(engine)


async def test_teeth_a_flusher_that_acknowledges_first_leaves_nothing_on_the_queue(tiers: Apart) -> None:
    engine = await tiers.open(wrap=Early)
    tiers.warm.refuse = True
    tiers.warm.cut()
    await make(engine, 3)
    await asyncio.sleep(0.5)
    assert await waiting(engine) == 0


async def test_r10_what_a_dead_worker_has_claimed_is_flushed_by_another(
    tiers: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await tiers.open(wrap=Idle)
    session = await make(engine, 3)
    claimed = await engine._flushing._hot._store._store.claim("dead", limit=100, idle=30)  # type: ignore[union-attr]
    assert {one.session for one in claimed} == {session}
    other = await tiers.open()
    await asyncio.sleep(0.5)
    assert await waiting(other) == 4
    monkeypatch.setattr("holdfast.engine.flushing._DEAD", 0.2)
    await eventually(lambda: flushed(other))
    assert (await other.find(ANA)).headers[0].version == 4
    assert session == (await other.find(ANA)).headers[0].id


class Overtaken(Around):
    """Somebody writes between the copy of a session and its acknowledgement, once."""

    write: Callable[[], Awaitable[Any]] | None = None

    async def acknowledge(self, flushed: Sequence[tuple[Queued, int]]) -> None:
        if self.write is not None:
            write, self.write = self.write, None
            await write()
        await self._store.acknowledge(flushed)  # type: ignore[attr-defined]


class Sweeping(Overtaken):
    """Broken on purpose: it takes a session for flushed, whatever has been written to it since it was copied."""

    async def acknowledge(self, flushed: Sequence[tuple[Queued, int]]) -> None:
        await super().acknowledge([(one, 2**53) for one, _ in flushed])


@pytest.mark.parametrize("broken", [False, True])
async def test_what_is_written_while_a_session_is_copied_is_flushed_too(tiers: Apart, broken: bool) -> None:
    """And with the broken one it is not: it has left the queue, and the warm tier does not have it."""
    stores: list[Overtaken] = []

    def wrap(store: Any) -> Any:
        stores.append((Sweeping if broken else Overtaken)(store))
        return stores[0]

    other = await tiers.open(wrap=Idle)
    session = await make(other, 3)
    engine = await tiers.open(wrap=wrap)
    stores[0].write = functools.partial(put, other, session, "late", expected=4)
    await eventually(lambda: _version(engine, session, 4))
    await eventually(lambda: flushed(engine))
    assert stores[0].write is None
    warm = await engine._journal.warm.head(session)
    assert warm is not None
    assert warm.version == (4 if broken else 5)


async def _version(engine: Engine, session: str, version: int) -> bool:
    warm = await engine._journal.warm.head(session)
    return warm is not None and warm.version >= version


async def test_a_flush_asked_for_takes_over_what_others_have_claimed(tiers: Apart) -> None:
    engine = await tiers.open(wrap=Idle)
    session = await make(engine, 3)
    store: Any = engine._journal.hot
    assert await store._store._store.claim("another", limit=100, idle=30)
    other = await tiers.open()
    assert (await other.rotate_keys(ROOT, drop=True)).dropped  # which must miss no session
    assert (await other.find(ANA)).headers[0].version == 4
    third = await tiers.open()
    assert await put(third, session, "later", expected=4) == 5
    assert not await sound(third)


async def test_a_flush_asked_for_flushes_everybodys(tiers: Apart) -> None:
    engine, other = await tiers.open(wrap=Idle), await tiers.open(wrap=Idle)
    await make(engine, 2)
    third = await tiers.open()
    assert await waiting(third) in (0, 3)
    await third.flush(ROOT)
    assert await waiting(other) == 0


async def test_labels_receipts_and_grants_come_to_the_warm_tier_with_the_log(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 30)
    await engine.label(session, ANA, "good", version=7)
    await engine.grant(session, ANA, "ben", Role.VIEWER)
    preview = await engine.preview(session, ANA)
    receipt = await engine.publish(session, ANA, seal=preview.seal)
    await engine.flush(ROOT)
    assert [one.id for one in (await engine.find(BEN)).headers] == [session]
    tiers.redis.say("FLUSHALL")  # Redis has lost everything
    other = await tiers.open()
    assert [(one.name, one.version) for one in await other.labels(session, ANA)] == [("good", 7)]
    assert await other.receipts(session, ANA) == [receipt]
    assert (await other.read(session, BEN)).header.version == 31
    await other.grant(session, ANA, "ben", None)
    await other.flush(ROOT)
    assert not (await other.find(BEN)).headers
    assert not await sound(other)


async def test_listings_follow_what_is_written(tiers: Apart) -> None:
    engine, other = await tiers.open(), await tiers.open()
    session = await make(engine)
    await engine.rename(session, ANA, "another title")
    await eventually(lambda: flushed(engine))
    found = (await other.find(ANA, text="another")).headers
    assert [(header.id, header.title) for header in found] == [(session, "another title")]
    await engine.discard(session, ANA)
    await eventually(lambda: flushed(engine))
    assert [header.status for header in (await other.find(ANA)).headers] == ["discarded"]


# -- what the hot tier has let go of -----------------------------------------------------------------------------------


async def test_r10_only_what_is_warm_is_trimmed_and_the_log_reads_whole(tiers: Apart) -> None:
    engine = await tiers.open(wrap=Idle)
    session = await make(engine, 60)
    hot = engine._journal.hot
    assert len(await hot.entries(session, after=0, limit=1000)) == 61
    await engine._tiering.flush(session)
    kept = await hot.entries(session, after=0, limit=1000)
    assert [entry.step for entry in kept] == list(range(61 - KEEP_ENTRIES + 1, 62))
    assert [entry.version for entry in await log(engine, session)] == list(range(1, 62))
    assert (await engine.read(session, ANA, version=10)).get("chunks/1").body["text"] == "one at 9"  # type: ignore[union-attr]
    (difference,) = await engine.diff(session, ANA, 5, 50)
    assert (difference.before["text"], difference.after["text"]) == ("one at 4", "one at 49")
    assert len((await engine.feed(session, ANA, limit=1000)).entries) == 61
    assert not await sound(engine)


async def test_undo_goes_back_beyond_what_is_trimmed_and_redo_forth_again(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine, 40)
    await engine.flush(ROOT)
    for version in range(41, 81):
        await engine.undo(session, ANA, expected=version)
    assert (await engine.read(session, ANA)).get("chunks/1").body["text"] == "one 1"  # type: ignore[union-attr]
    await engine.flush(ROOT)
    for version in range(81, 121):
        await engine.redo(session, ANA, expected=version)
    assert (await engine.read(session, ANA)).get("chunks/1").body["text"] == "one at 40"  # type: ignore[union-attr]
    assert not await sound(engine)


async def test_r05_a_change_whose_entry_is_trimmed_is_known_when_it_is_sent_again(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine)
    assert await put(engine, session, "first", expected=1, change_id="c1") == 2
    await engine.rename(session, ANA, "once", change_id="r1")
    for version in range(2, 62):
        await put(engine, session, f"{version}", expected=version)
    await engine.flush(ROOT)
    assert await engine._journal.hot.change(session, "c1") is None
    other = await tiers.open()
    for rested in (False, True):  # in the hot tier all the while, and brought back there
        if rested:
            await engine.suspend(session, ANA)
        steps = (await other.header(session, ANA)).step
        for one, expected in ((engine, 1), (engine, 62), (other, 1), (other, 62)):
            async with one.edit(session, ANA, expected=expected, change_id="c1") as draft:
                draft.put("chunks/1", {"text": "first"})
            assert draft.result.version == 2
            assert draft.result.replayed
            with pytest.raises(ChangeIdReusedError):
                await put(one, session, "another", expected=expected, change_id="c1")
            await one.rename(session, ANA, "once", change_id="r1")
            assert (await one.header(session, ANA)).step == steps
    await engine.flush(ROOT)
    assert not await sound(engine)


# -- F11: duplicates, a wrong order, poison ----------------------------------------------------------------------------


class Muddled(Around):
    """The queue gives what it has twice, the newest first."""

    async def claim(self, worker: str, **more: Any) -> list[Any]:
        claimed: list[Any] = await self._store.claim(worker, **more)  # type: ignore[attr-defined]
        return claimed[::-1] + claimed


async def test_f11_duplicates_in_a_wrong_order_end_in_the_same_state(tiers: Apart) -> None:
    engines = [await tiers.open(wrap=Muddled), await tiers.open(wrap=Muddled)]
    sessions = [await make(engines[number % 2], 4) for number in range(4)]
    await asyncio.gather(
        *(put(engines[n % 2], sessions[n // 5], f"{n}", key=f"chunks/{n}", expected=5, rebase=True) for n in range(20))
    )
    for engine in engines:
        await eventually(lambda engine=engine: flushed(engine))  # type: ignore[misc]
    for session in sessions:
        assert [entry.version for entry in await log(engines[0], session)] == list(range(1, 11))
    assert not await sound(engines[0])


def poison(redis: RedisServer, tiers: Apart, session: str, *fields: str) -> None:
    """Put an entry that nobody has written on the queue of a session's partition."""
    from holdfast.stores.hot.redis_keys import Keys

    prefix = (tiers.settings.hot or "").rpartition("prefix=")[2]
    queue = Keys(prefix, 64).partition(session.encode()).queue.decode()
    assert redis.say("XADD", queue, "*", *fields).startswith(b"$")


async def test_f11_poison_goes_to_the_dead_letters_and_holds_nobody_up(tiers: Apart, redis: RedisServer) -> None:
    engine = await tiers.open()
    broken, well = await make(engine, 3), await make(engine, 3)
    await engine.flush(ROOT)
    poison(redis, tiers, well, "no", "sense")
    await _tear(engine, broken)
    await put(engine, broken, "later")
    await put(engine, well, "later")
    await eventually(lambda: flushed(engine))
    state = await engine.tiers(ROOT)
    assert {(letter.session, letter.reason) for letter in state.buried} == {
        ("", "malformed"),
        (broken, "already-exists"),
    }
    assert not await sound(engine, well)
    assert [found.session for found in await sound(engine)] == [broken]
    # Mended, it is flushed when it is asked for again; what makes no sense stays a dead letter.
    tiers.postgres.run(
        f"UPDATE {_schema(tiers)}.session SET digest = kept FROM {_schema(tiers)}.torn WHERE id = torn.was"
    )
    await engine.flush(ROOT, retry=True)
    state = await engine.tiers(ROOT)
    assert [letter.reason for letter in state.buried] == ["malformed"]
    assert not await sound(engine)


def _schema(tiers: Apart) -> str:
    return (tiers.settings.warm or "").rpartition("schema=")[2]


async def _tear(engine: Engine, session: str) -> None:
    """Let the warm tier have another history of a session than the hot one."""
    pool = engine._journal.warm._store._pool  # type: ignore[attr-defined]
    await pool.fetch(
        pool.sql("CREATE TABLE {schema}.torn AS SELECT id AS was, digest AS kept FROM {schema}.session WHERE id = $1"),
        session,
    )
    await pool.fetch(pool.sql("UPDATE {schema}.session SET digest = '\\x00' WHERE id = $1 RETURNING 1"), session)


class Stuck(Around):
    """One session's log never comes: each time it is asked for the connection is lost."""

    session = ""

    async def entries(self, session: str, **more: Any) -> list[Any]:
        if session == self.session:
            raise StoreUnavailableError("hot", "its log does not come")
        found: list[Any] = await self._store.entries(session, **more)
        return found


async def test_f11_a_session_that_cannot_be_read_holds_nobody_up(tiers: Apart) -> None:
    stuck: list[Stuck] = []

    def wrap(store: Any) -> Any:
        stuck.append(Stuck(store))
        return stuck[0]

    engine = await tiers.open(wrap=wrap)
    held = await make(engine)
    await engine.flush(ROOT)
    stuck[0].session = held
    await put(engine, held, "it waits", expected=1)
    await asyncio.sleep(0.5)
    others = [await make(engine, 2) for _ in range(4)]
    await eventually(lambda: _all(engine, set(others)))
    await eventually(lambda: _waits(engine, 1))
    stuck[0].session = ""
    await eventually(lambda: flushed(engine))
    assert not await sound(engine)


async def _waits(engine: Engine, many: int) -> bool:
    return await waiting(engine) == many


async def _all(engine: Engine, sessions: set[str]) -> bool:
    return sessions <= {header.id for header in (await engine.find(ANA)).headers if header.version == 3}


async def test_a_flush_asked_for_does_not_end_at_poison(tiers: Apart) -> None:
    engine = await tiers.open(wrap=Idle)
    broken = await make(engine, 1)
    await engine._tiering.flush(broken)
    await _tear(engine, broken)
    await put(engine, broken, "later", expected=2)
    others = [await make(engine) for _ in range(20)]
    other = await tiers.open()
    await other.flush(ROOT)
    page = await other.find(ROOT)
    assert {header.id for header in page.headers} == set(others)
    assert page.unreadable == (broken,)
    assert await waiting(other) == 0


# -- acknowledged once it is warm --------------------------------------------------------------------------------------


async def test_where_warm_must_have_it_a_write_is_acknowledged_once_it_has(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer
) -> None:
    async with Apart.on(tmp_path / "home", redis, postgres, acknowledge="warm") as tiers:
        engine = await tiers.open(wrap=Idle)
        session = await make(engine)
        head = await engine._journal.warm.head(session)
        assert head is not None
        assert head.step == 1
        async with engine.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/1", {"text": "two"})
        assert draft.result.durability == "warm"
        tiers.warm.refuse = True
        tiers.warm.cut()
        with pytest.raises(StoreUnavailableError):
            await put(engine, session, "three", expected=2, change_id="c3")
        with pytest.raises(StoreUnavailableError):  # nobody is told that it is safe while it is not
            await put(engine, session, "three", expected=2, change_id="c3")
        with pytest.raises(StoreUnavailableError):
            await engine.rename(session, ANA, "new", change_id="r1")
        with pytest.raises(StoreUnavailableError):
            await engine.rename(session, ANA, "new", change_id="r1")
        with pytest.raises(StoreUnavailableError):
            await make(engine, change_id="m1")
        with pytest.raises(StoreUnavailableError):
            await make(engine, change_id="m1")
        tiers.warm.heal()
        await asyncio.sleep(2.5)
        assert await put(engine, session, "three", expected=2, change_id="c3") == 3
        redis.say("FLUSHALL")
        other = await tiers.open()
        assert (await other.read(session, ANA)).header.version == 3


__all__ = ["around"]
