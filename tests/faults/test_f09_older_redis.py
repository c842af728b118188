"""F09: Redis comes back with an older append-only file. The sessions that are behind take no writes and are read from
PostgreSQL, marked as perhaps stale; ``verify`` tells of them, and its repair keeps the newer side. Where the older side
was written to before anybody could see it, both are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.engine.rehydrating import Rehydrating
from holdfast.errors import HoldfastError, PermissionDeniedError, StoreUnavailableError, TierBehindError
from holdfast.testing.broken import Around
from holdfast.testing.tiers import ANA, ROOT, Apart, eventually, flushed, log, make, put, sound


class Past:
    """The folder of a Redis as it was at some moment."""

    def __init__(self, tiers: Apart) -> None:
        self._redis, self._kept = tiers.redis, tiers.home.with_name("past")
        self._redis.kill()
        shutil.copytree(self._redis.folder, self._kept)
        self._redis.start()

    def put_back(self) -> None:
        """Let Redis come back as it was then."""
        self._redis.kill()
        shutil.rmtree(self._redis.folder)
        shutil.copytree(self._kept, self._redis.folder)
        self._redis.start()


async def back(engine: Engine, session: str) -> None:
    """Wait until an engine speaks to its Redis again: the breaker lets a probe through after a while."""

    async def answers() -> bool:
        try:
            await engine._journal.hot.head(session)
        except HoldfastError:
            return False
        return True

    await eventually(answers)


async def refused(engine: Engine, session: str, version: int) -> None:
    """A session that is behind takes no write of any sort, and is read as the warm tier has it."""
    for verb in (
        put(engine, session, "no", expected=version),
        put(engine, session, "no", expected=version - 3),
        engine.rename(session, ANA, "no"),
        engine.undo(session, ANA, expected=version),
        engine.lease(session, ANA, "tab"),
        engine.suspend(session, ANA),
        engine.discard(session, ANA),
    ):
        with pytest.raises(TierBehindError) as told:
            await verb
        assert told.value.session == session
    read = await engine.read(session, ANA)
    assert read.header.stale
    assert read.header.version == version
    assert [entry.version for entry in await log(engine, session) if entry.commit] == list(range(1, version + 1))


async def test_f09_an_older_redis_is_noticed_and_refused_and_repaired(tiers: Apart) -> None:
    engine = await tiers.open()
    session, same, later, rested = [await make(engine, 4) for _ in range(4)]
    await engine.flush(ROOT)
    past = Past(tiers)
    for one in (session, rested):
        await back(engine, one)
        for version in range(5, 10):
            await put(engine, one, f"at {version}", expected=version)
    await engine.label(session, ANA, "good")
    await engine.flush(ROOT)
    await engine._tiering.rest(rested)
    young = await make(engine, 2)
    await engine.flush(ROOT)
    was = await engine.export(session, ANA)
    past.put_back()
    await back(engine, session)
    other = await tiers.open()  # it has never seen any of them
    for asked in (engine, other):
        for behind in (session, rested):
            await refused(asked, behind, 10)
        assert (await asked.read(young, ANA)).header.version == 3  # which Redis has never heard of: it is brought up
    assert await put(engine, same, "as before", expected=5) == 6
    assert await put(other, later, "as before", expected=5) == 6
    assert {found.session for found in await sound(engine)} == {session, rested}
    codes = {problem.code for found in await sound(other, session) for problem in found.problems}
    assert "tiers-differ" in codes
    with pytest.raises(PermissionDeniedError):
        [found async for found in engine.verify(ANA, session, repair=True)]
    await refused(other, session, 10)
    repaired = [found async for found in other.verify(ROOT, repair=True)]
    assert all(found.ok for found in repaired)
    assert {found.session for found in repaired if found.repaired} == {session, rested}
    for asked in (engine, other):
        assert await asked.export(session, ANA) == was
        assert not (await asked.header(session, ANA)).stale
    for behind in (session, rested):
        assert await put(engine, behind, "later", expected=10) == 11
        assert await put(other, behind, "and later", expected=11) == 12
    await eventually(lambda: flushed(engine))
    assert not await sound(other)
    assert not [found for found in [one async for one in engine.verify(ROOT, repair=True)] if found.repaired]


def taken(tiers: Apart) -> Callable[[], None]:
    """What PostgreSQL has now; called, it puts that back."""
    schema = (tiers.settings.warm or "").rpartition("schema=")[2]
    tables = ("session", "log", "snapshot")
    tiers.postgres.run(";".join(f"CREATE TABLE {schema}.past_{name} AS TABLE {schema}.{name}" for name in tables))

    def put_back() -> None:
        each = [f"TRUNCATE {schema}.{name}; INSERT INTO {schema}.{name} TABLE {schema}.past_{name}" for name in tables]
        tiers.postgres.run("BEGIN;" + ";".join(each) + ";COMMIT")

    return put_back


class ForgetsWhatRests(Around):
    """It cannot say at which step it has let go of a session."""

    async def rested(self, session: str) -> int | None:
        return None


async def put_back_below(tiers: Apart, wrap: Callable[[Any], Any] = lambda store: store) -> None:
    """An older PostgreSQL is put back below sessions at rest, and repaired."""
    engine = await tiers.open(wrap=wrap)
    session, same, late = [await make(engine, 4) for _ in range(3)]
    for one in (session, same):
        await engine.suspend(one, ANA)
    await engine.flush(ROOT)
    past = taken(tiers)
    was = (await engine.read(session, ANA)).items
    for version in range(5, 9):
        await put(engine, session, f"at {version}", expected=version)
    for one in (session, late):
        await engine.suspend(one, ANA)
    past()
    other = await tiers.open(wrap=wrap)
    for asked in (engine, other):
        with pytest.raises(TierBehindError) as told:
            await put(asked, session, "no", expected=5)
        assert (told.value.hot, told.value.warm) == (11, 6)
        read = await asked.read(session, ANA)
        assert read.header.stale
        assert read.header.version == 5
    found = {one.session: {problem.code for problem in one.problems} for one in await sound(other)}
    assert found == {session: {"tier-behind"}, late: {"tier-behind"}}
    repaired = [one async for one in other.verify(ROOT, repair=True)]
    assert all(one.ok for one in repaired)
    assert {one.session for one in repaired if one.repaired} == {session, late}
    assert (await engine.read(session, ANA)).items == was
    for asked, version in ((engine, 5), (other, 6)):
        assert await put(asked, session, f"after {version}", expected=version) == version + 1
    assert await put(other, same, "as before", expected=5) == 6
    await eventually(lambda: flushed(engine))
    assert not await sound(other)


async def test_f09_an_older_postgresql_is_noticed_for_what_rests_there_and_repaired(tiers: Apart) -> None:
    await put_back_below(tiers)


async def test_teeth_an_older_postgresql_is_not_noticed_where_nobody_knows_what_rests(tiers: Apart) -> None:
    with pytest.raises(StoreUnavailableError):  # it is refused each time it is brought back, and nobody says why
        await put_back_below(tiers, ForgetsWhatRests)


async def test_f09_an_older_postgresql_below_more_edits_than_redis_keeps_loses_no_item(
    tiers: Apart,
) -> None:
    engine = await tiers.open()
    session = await make(engine, 4)
    await engine.flush(ROOT)
    past = taken(tiers)
    for version in range(5, 65):
        await put(engine, session, f"at {version}", expected=version)
    await engine.flush(ROOT)
    past()
    other = await tiers.open()
    assert await put(other, session, "and on", key="chunks/2", expected=65) == 66
    was = {item.key: item.body for item in (await other.read(session, ANA)).items}
    assert [one.session for one in await sound(other)] == [session]
    repaired = [one async for one in other.verify(ROOT, repair=True)]
    assert [one.session for one in repaired if one.repaired] == [session]
    assert (await other.read(session, ANA)).header.version == 5
    (made,) = [one.id for one in (await other.find(ANA)).headers if one.id != session]
    found = await other.read(made, ANA)
    assert found.header.parent == session
    assert {item.key: item.body for item in found.items} == was
    assert await put(engine, session, "later", expected=5) == 6
    await eventually(lambda: flushed(engine))
    assert not await sound(engine)


async def test_f09_where_both_sides_were_written_to_both_are_kept(tiers: Apart) -> None:
    engine = await tiers.open()
    shorter, longer = await make(engine, 4), await make(engine, 4)
    await engine.flush(ROOT)
    past = Past(tiers)
    for session in (shorter, longer):
        await back(engine, session)
        for version in range(5, 8):
            await put(engine, session, f"newer {version}", expected=version)
    await engine.flush(ROOT)
    was = {session: await engine.export(session, ANA) for session in (shorter, longer)}
    past.put_back()
    # While the warm tier is gone nobody can see that Redis is behind: it takes writes.
    blind = await tiers.open()
    tiers.warm.refuse = True
    tiers.warm.cut()
    assert await put(blind, shorter, "other", expected=5) == 6
    for version in range(5, 12):
        assert await put(blind, longer, f"other {version}", expected=version) == version + 1
    tiers.warm.heal()
    await back(engine, shorter)
    other = await tiers.open()
    for session in (shorter, longer):
        with pytest.raises(TierBehindError):
            await put(other, session, "no", expected=8)
        assert (await other.read(session, ANA)).header.version == 8
    await eventually(lambda: flushed(other))  # what cannot be flushed has gone to the dead letters
    assert {found.session for found in await sound(other)} == {shorter, longer}
    repaired = [found async for found in other.verify(ROOT, repair=True)]
    assert all(found.ok for found in repaired), repaired
    kept = {found.session: found.repaired for found in repaired if found.repaired}
    assert set(kept) == {shorter, longer}
    assert all(len(sentences) == 2 for sentences in kept.values())
    page = await other.find(ANA)
    recovered = {header.parent: header for header in page.headers if header.title.endswith("(recovered)")}
    for session, text in ((shorter, "other"), (longer, "other 11")):
        for one in (engine, other, blind):
            assert await one.export(session, ANA) == was[session]
        aside = await other.read(recovered[session].id, ANA)
        assert aside.get("chunks/1").body["text"] == text  # type: ignore[union-attr]
        assert await put(other, session, "later", expected=8) == 9
        assert await put(other, aside.header.id, "later", expected=1) == 2
    await other.flush(ROOT, retry=True)
    assert (await other.tiers(ROOT)).buried == ()
    assert not await sound(other)


async def test_f09_an_older_redis_with_keys_that_are_gone_since_is_repaired(tiers: Apart) -> None:
    engine = await tiers.open()
    session, behind = await make(engine, 2), await make(engine, 2)
    await engine.flush(ROOT)
    past = Past(tiers)
    await back(engine, session)
    await put(engine, behind, "later", expected=3)
    assert (await engine.rotate_keys(ROOT, drop=True)).dropped
    past.put_back()
    await back(engine, session)
    other = await tiers.open()
    repaired = [found async for found in other.verify(ROOT, repair=True)]
    assert all(found.ok for found in repaired), repaired
    for one, version in ((session, 3), (behind, 4)):
        assert await put(other, one, "at work", expected=version) == version + 1
    assert not await sound(other)


async def test_teeth_without_the_check_an_older_redis_takes_writes(
    tiers: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def believes(self: Rehydrating, head: object) -> bool:
        return True

    monkeypatch.setattr(Rehydrating, "check", believes)
    engine = await tiers.open()
    session = await make(engine, 4)
    await engine.flush(ROOT)
    past = Past(tiers)
    await back(engine, session)
    await put(engine, session, "newer", expected=5)
    await engine.flush(ROOT)
    past.put_back()
    other = await tiers.open()
    assert await put(other, session, "over it", expected=5) == 6
    assert [found.session for found in await sound(other)] == [session]
