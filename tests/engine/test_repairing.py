"""DESIGN 6: ``verify`` with ``repair`` touches what differs and nothing else. How it resolves an older Redis: F09."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.errors import PermissionDeniedError
from holdfast.model.access import Principal
from holdfast.testing.tiers import ANA, ROOT, Apart, Idle, log, make, put, sound

OPERATOR = Principal("olga", roles=frozenset({"operator"}))


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


async def _bury(engine: Engine, reason: str = "already-exists") -> None:
    """Let all that waits to be flushed be dead letters."""
    redis = _redis(engine)
    await redis.bury(await redis.claim("w", limit=100, idle=0.0), reason)


async def _unflushed(tiers: Apart) -> Engine:
    """An engine that flushes nothing of its own accord."""
    engine = await tiers.open(wrap=Idle)
    engine._flushing._running.cancel()  # type: ignore[union-attr]
    return engine


async def test_a_creation_that_is_a_dead_letter_is_verified_and_said_to_be_one(tiers: Apart) -> None:
    engine = await _unflushed(tiers)
    lost = await make(engine, 2)
    theirs = (await engine.create(Principal("zoe", "other"), kind="knowledge")).header.id
    await _bury(engine)
    found = {one.session: one async for one in engine.verify(ROOT)}
    assert theirs not in found
    assert [problem.code for problem in found[lost].problems] == ["dead-letter"]
    assert "already-exists" in found[lost].problems[0].what
    assert found[lost].entries == 3  # it was flushed on the way: this time it could be
    [alone] = [one async for one in engine.verify(ROOT, lost)]
    assert [problem.code for problem in alone.problems] == ["dead-letter"]
    other = await tiers.open()
    assert len((await other.tiers(ROOT)).buried) == 2
    await other.flush(ROOT, retry=True)
    assert (await other.tiers(ROOT)).buried == ()
    assert not await sound(other)


async def test_a_repair_tries_the_dead_letters_again(tiers: Apart) -> None:
    engine = await _unflushed(tiers)
    lost = await make(engine, 2)
    await _bury(engine)
    other = await tiers.open()
    assert await repaired(other, lost) == {lost: ("what could not be flushed is in the warm tier",)}
    assert (await other.tiers(ROOT)).buried == ()
    warm = await other._journal.warm.head(lost)
    assert warm is not None
    assert warm.version == 3
    assert not await sound(other)


async def test_f09_a_dead_letter_of_another_history_stays_until_the_session_is_repaired(tiers: Apart) -> None:
    engine = await _unflushed(tiers)
    session = await make(engine, 2)
    await _two_histories(engine, session, 3)
    await _bury(engine)
    other = await tiers.open()
    await other.flush(ROOT, retry=True)  # tried again, and buried again
    assert [one.session for one in (await other.tiers(ROOT)).buried] == [session]
    for asked in (session, None):
        [found] = await sound(other, asked)
        codes = {problem.code for problem in found.problems}
        assert (found.session, codes >= {"dead-letter", "tiers-differ"}) == (session, True)
    assert set(await repaired(other, session)) == {session}
    assert (await other.tiers(ROOT)).buried == ()
    assert not await sound(other)


async def test_what_is_kept_apart_has_its_sources_and_is_said_to_have_no_history(tiers: Apart) -> None:
    engine = await _unflushed(tiers)
    made = await engine.ingest(ANA, b"# One\n\nhello\n\n# Two\n\nworld", "a.md")
    session = made.header.id
    await _two_histories(engine, session, made.header.version)
    other = await tiers.open(settings=replace(tiers.settings, grace=0.0))
    was = await engine._journal.load(session)
    data = await other._blobs.get(was, made.header.source["blob"])
    said = (await repaired(other, session))[session][0]
    assert "its items and sources; not its history" in said
    apart = said.split("is session ")[1].split()[0]
    await other.discard(session, ANA)  # its objects go with it
    assert not await other._blobs.names(session)
    whole = await other.read(apart, ANA)
    body = whole.get("chunks/new")
    assert body is not None
    assert body.body["text"] == "hot side"
    assert {**whole.header.source, "blob": ""} == {**made.header.source, "blob": ""}
    assert whole.header.blobs == (whole.header.source["blob"],)
    assert await other._blobs.get(await other._journal.load(apart), whole.header.source["blob"]) == data
    assert not await sound(other)


async def _two_histories(engine: Engine, session: str, version: int) -> None:
    """Let each tier have a commit that the other has not."""
    await engine._tiering.flush(session)
    row, log = await _kept(engine, session)
    await put(engine, session, "warm side", key="chunks/new", expected=version)
    await engine._tiering.flush(session)
    await _put_back(engine, session, row, log)
    engine._journal.forget(session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._journal._rehydrating, "check", _unchecked)
        await put(engine, session, "hot side", key="chunks/new", expected=version)


async def _unchecked(head: Any) -> bool:
    return True


async def _kept(engine: Engine, session: str) -> tuple[bytes, bytes]:
    """What Redis has of a session: its row, its log."""
    redis: Any = _redis(engine)
    keys = redis.keys.session(session)
    return tuple([await redis._redis.ask(keys.tag, b"DUMP", key) for key in (keys.session, keys.log)])


async def _put_back(engine: Engine, session: str, row: bytes, log: bytes) -> None:
    """Let Redis have a session as it was."""
    redis: Any = _redis(engine)
    keys = redis.keys.session(session)
    for key, was in ((keys.session, row), (keys.log, log)):
        await redis._redis.ask(keys.tag, b"RESTORE", key, 0, was, b"REPLACE")


def _redis(engine: Engine) -> Any:
    store: Any = engine._journal.hot
    while hasattr(store, "_store"):
        store = store._store
    return store


async def _set_back(engine: Engine, session: str, row: Any) -> None:
    """Let Redis have a session's head as it was."""
    redis = engine._journal.hot._store  # type: ignore[attr-defined]
    keys = redis.keys.session(session)
    sealed, digest, version = row
    fields = (b"step", version, b"version", version, b"digest", digest, b"sealed", sealed)
    await redis._redis.ask(keys.tag, b"HSET", keys.session, *fields)
    for step in (version + 1, version + 2):
        await redis._redis.ask(keys.tag, b"HDEL", keys.log, str(step))
