"""R13: warned in time, expired in time, gone from every tier in time; permanent stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import (
    HoldfastError,
    InvalidError,
    LimitExceededError,
    NotDraftError,
    SessionGoneError,
)
from holdfast.model.access import Principal, Role
from holdfast.model.retention import Retention
from holdfast.settings import Settings
from holdfast.testing.clock import START, ManualClock

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
DAY = 86_400.0
CANARY = "a canary that must be gone"
ITEMS = [("chunks/1", {"text": "one"})]


async def start(engine: Engine, **retention: Any) -> str:
    return str((await engine.create(ANA, kind="knowledge", items=ITEMS, retention=Retention(**retention))).id)


async def put(engine: Engine, session: str, expected: int, text: str | None = None) -> None:
    async with engine.edit(session, ANA, expected=expected) as draft:
        draft.put("chunks/1", {"text": text or f"{expected}"})


async def timeline(engine: Engine, session: str) -> list[tuple[str, float]]:
    """The steps that time brought about, each with the seconds since the start at which it was taken."""
    entries = (await engine.feed(session, ANA, limit=1000)).entries
    return [
        (entry.header.operation, (entry.header.at - START).total_seconds())
        for entry in entries
        if entry.header.actor == "holdfast"
    ]


async def sweep_each(engine: Engine, clock: ManualClock, seconds: float, until: float) -> None:
    while (clock.now() - START).total_seconds() < until:
        clock.advance(seconds)
        await engine.sweep(ROOT)


async def test_r13_warnings_come_at_50_and_80_percent_and_five_minutes_before_the_end(
    engine: Engine, clock: ManualClock
) -> None:
    session = await start(engine, ttl=DAY)
    for last, until in (("warn", DAY * 0.5), ("warn", DAY * 0.8), ("warn", DAY - 300), ("expire", DAY)):
        clock.advance(until - 1 - (clock.now() - START).total_seconds())
        assert (await engine.sweep(ROOT)).total == 0
        clock.advance(2)
        assert (await engine.sweep(ROOT)).total == 1
        assert (await engine.sweep(ROOT)).total == 0
        assert (await timeline(engine, session))[-1] == (last, until + 1)
    details = [
        entry.payload.detail for entry in (await engine.feed(session, ANA)).entries if entry.header.operation == "warn"
    ]
    assert [detail["seconds_left"] for detail in details] == [DAY * 0.5 - 1, DAY * 0.2 - 1, 299.0]


@pytest.mark.parametrize("ttl", [10.0, 400.0, 1000.0, 1800.0, 7200.0])
async def test_r13_a_sweep_every_second_is_never_more_than_a_second_off(
    opens: Any, clock: ManualClock, ttl: float
) -> None:
    engine = await opens()
    session = await start(engine, ttl=ttl)
    pace = max(1.0, ttl / 120)
    await sweep_each(engine, clock, pace, ttl + 2 * pace)
    warnings = {ttl * 0.5, ttl * 0.8, *([ttl - 300] if ttl > 300 else [])}
    due = [*(("warn", at) for at in sorted(warnings)), ("expire", ttl)]
    found = await timeline(engine, session)
    assert [name for name, _ in found] == [name for name, _ in due]
    assert all(0 <= at - wanted <= pace for (_, at), (_, wanted) in zip(found, due, strict=True))


async def test_r13_a_sliding_time_to_live_starts_anew_with_each_write_and_its_warnings_too(
    engine: Engine, clock: ManualClock
) -> None:
    session = await start(engine, ttl=1000.0)
    for version in range(1, 8):
        clock.advance(600)
        assert (await engine.sweep(ROOT)).warned == 1  # at 50 %, each time anew
        await put(engine, session, version)
    header = await engine.header(session, ANA)
    assert header.expires is not None
    assert (header.expires - clock.now()).total_seconds() == 1000
    clock.advance(999)
    assert (await engine.sweep(ROOT)).expired == 0
    clock.advance(1)
    assert (await engine.sweep(ROOT)).expired == 1


async def test_r13_writing_often_expires_in_time_all_the_same(engine: Engine, clock: ManualClock) -> None:
    """The sweeper's index is not moved at every keystroke; that must cost no more than a look that comes early."""
    session = await start(engine, ttl=1000.0)
    for version in range(1, 61):
        clock.advance(7)
        await put(engine, session, version)
    last = (clock.now() - START).total_seconds()
    await sweep_each(engine, clock, 1, last + 1002)
    found = await timeline(engine, session)
    assert [(name, at - last) for name, at in found] == [
        ("warn", 500.0),
        ("warn", 700.0),
        ("warn", 800.0),
        ("expire", 1000.0),
    ]


async def test_r13_a_fixed_time_to_live_is_not_moved_by_writing_or_touching(engine: Engine, clock: ManualClock) -> None:
    session = await start(engine, ttl=1000.0, sliding=False)
    clock.advance(900)
    await put(engine, session, 1)
    await engine.touch(session, ANA)
    clock.advance(99)
    await put(engine, session, 2)
    clock.advance(1)
    with pytest.raises(SessionGoneError):
        await put(engine, session, 3)


async def test_r13_a_maximum_bounds_writing_touching_and_extending(engine: Engine, clock: ManualClock) -> None:
    session = await start(engine, ttl=1000.0, maximum=2500.0)
    for version in (1, 2):
        clock.advance(900)
        await put(engine, session, version)
    header = await engine.header(session, ANA)
    assert header.expires is not None
    assert (header.expires - header.created).total_seconds() == 2500
    with pytest.raises(LimitExceededError):
        await engine.extend(session, ANA, seconds=701)
    with pytest.raises(LimitExceededError):
        await engine.extend(session, ANA, seconds=None)
    await engine.extend(session, ANA, seconds=700)
    clock.advance(700)
    with pytest.raises(SessionGoneError):
        await engine.read(session, ANA)


async def test_r13_an_extension_and_a_permanent_stay(engine: Engine, clock: ManualClock) -> None:
    extended, permanent = await start(engine, ttl=1000.0), await start(engine, ttl=1000.0)
    born = await start(engine, ttl=None)
    await engine.extend(extended, ANA, seconds=5000)
    await engine.extend(permanent, ANA, seconds=None)
    clock.advance(4999)
    assert (await engine.sweep(ROOT)).expired == 0
    await engine.read(extended, ANA)
    clock.advance(1)
    with pytest.raises(SessionGoneError):
        await engine.read(extended, ANA)
    clock.advance(100 * 365 * DAY)
    assert (await engine.sweep(ROOT)).expired == 1
    for session in (permanent, born):
        await engine.read(session, ANA)
        assert (await engine.header(session, ANA)).expires is None


async def test_r13_what_is_published_does_not_expire(engine: Engine, clock: ManualClock) -> None:
    session = await start(engine, ttl=1000.0)
    seal = (await engine.preview(session, ANA)).seal
    await engine.publish(session, ANA, seal=seal)
    clock.advance(365 * DAY)
    assert (await engine.sweep(ROOT)).total == 0
    await engine.read(session, ANA)


async def test_r13_expired_answers_gone_at_once_swept_or_not(opens: Any, clock: ManualClock) -> None:
    engine = await opens()
    session = await start(engine, ttl=1000.0)
    clock.advance(1000)
    for each in (engine, await opens()):
        for refused in (each.read(session, ANA), each.history(session, ANA), each.touch(session, ANA)):
            with pytest.raises(SessionGoneError):
                await refused
    await engine.sweep(ROOT)
    with pytest.raises(SessionGoneError) as caught:
        await engine.read(session, ANA)
    assert caught.value.status == "expired"
    assert caught.value.restorable_until is not None


async def test_r13_within_its_grace_a_session_comes_back_whole_and_not_a_second_later(
    opens: Any, clock: ManualClock, settings: Settings
) -> None:
    engine = await opens(Settings(home=settings.home, grace=500.0))
    expired, discarded = await start(engine, ttl=1000.0), await start(engine, ttl=None)
    await put(engine, expired, 1, "two")
    clock.advance(1000)
    await engine.sweep(ROOT)
    await engine.discard(discarded, ANA)
    clock.advance(499)
    await engine.sweep(ROOT)
    for session, version in ((expired, 2), (discarded, 1)):
        header = await engine.revive(session, ANA)
        assert (header.status, header.version, header.restorable_until) == ("draft", version, None)
        assert len((await engine.read(session, ANA)).items) == 1
    revived = await engine.header(expired, ANA)
    assert revived.expires is not None
    assert (revived.expires - clock.now()).total_seconds() == 1000
    with pytest.raises(NotDraftError):
        await engine.revive(expired, ANA)
    await engine.discard(expired, ANA)
    clock.advance(500)
    with pytest.raises(SessionGoneError):
        await engine.revive(expired, ANA)


def holding(home: Path, session: str) -> list[str]:
    """Files of the cold tier that belong to a session."""
    return [str(path) for path in (home / "cold").rglob("*") if session in str(path) and path.is_file()]


async def test_r13_a_purged_session_is_gone_from_every_tier(opens: Any, clock: ManualClock, settings: Settings) -> None:
    import apsw

    engine = await opens()
    data = f"# Title\n\n{CANARY}\n".encode()
    session = str((await engine.ingest(ANA, data, "a.md", retention=Retention(ttl=1000.0))).id)
    kept = str((await engine.ingest(ANA, data, "a.md", retention=Retention(ttl=None))).id)
    await engine.label(session, ANA, "a label")
    for shared in (session, kept):
        await engine.grant(shared, ANA, "ben", Role.VIEWER)
    assert holding(settings.home, session)
    clock.advance(1000)
    assert (await engine.sweep(ROOT)).expired == 1
    clock.advance(604_799)
    assert (await engine.sweep(ROOT)).purged == 0
    clock.advance(1)
    assert (await engine.sweep(ROOT)).purged == 1
    assert holding(settings.home, session) == []
    assert holding(settings.home, kept)
    connection = apsw.Connection(str(settings.home / "holdfast.sqlite"))
    number, key, due = connection.execute("SELECT no, key, due FROM session WHERE id = ?", (session,)).get
    assert (key, due) == (None, None)
    assert connection.execute("SELECT count(*) FROM item WHERE session = ?", (number,)).get == 0
    lengths = connection.execute("SELECT DISTINCT length(payload) FROM log WHERE session = ?", (number,)).fetchall()
    assert lengths == [(32,)]  # the hash of what was there
    assert connection.execute("SELECT id FROM member").fetchall() == [(kept,)]
    connection.close()
    for each in (engine, await opens()):
        for refused in (each.header(session, ANA), each.revive(session, ANA), each.export(session, ANA)):
            with pytest.raises(SessionGoneError) as caught:
                await refused
            assert caught.value.restorable_until is None
        assert session not in [header.id for header in (await each.find(ANA)).headers]
    verbs = [line.verb for line in await engine.audit(ANA, session_id=session)]
    assert verbs[:3] == ["create", "label", "grant"]
    assert "purge" in verbs
    assert [verified.ok async for verified in engine.verify(ROOT)] == [True] * 3
    assert (await engine.sweep(ROOT)).total == 0


async def test_r13_with_no_grace_it_is_gone_at_once(opens: Any, clock: ManualClock, settings: Settings) -> None:
    engine = await opens(Settings(home=settings.home, grace=0.0))
    discarded, expired = await start(engine, ttl=None), await start(engine, ttl=1000.0)
    await engine.discard(discarded, ANA)
    clock.advance(1000)
    with pytest.raises(SessionGoneError):
        await engine.revive(expired, ANA)  # not swept yet, and gone all the same
    await engine.sweep(ROOT)
    for session in (discarded, expired):
        for refused in (engine.header(session, ANA), engine.revive(session, ANA)):
            with pytest.raises(SessionGoneError):
                await refused


async def test_r13_a_purge_that_was_cut_off_is_finished_by_the_next_sweep(
    opens: Any, clock: ManualClock, settings: Settings
) -> None:
    class Halting:
        """The process ends, so to say, between the step and the purge of its content."""

        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def purge(self, session: str) -> None:
            raise KeyboardInterrupt

    engine = await opens(wrap=Halting)
    session = str((await engine.ingest(ANA, b"# T\n\ntext\n", "a.md")).id)
    await engine.discard(session, ANA)
    clock.advance(604_800)
    with pytest.raises(KeyboardInterrupt):
        await engine.sweep(ROOT)
    again = await opens()
    assert (await again.sweep(ROOT)).purged == 1
    with pytest.raises(SessionGoneError):
        await again.header(session, ANA)
    assert holding(settings.home, session) == []
    assert (await again.sweep(ROOT)).total == 0


async def test_r13_two_sweepers_at_a_time_take_each_step_once(opens: Any, clock: ManualClock) -> None:
    import asyncio

    engines = [await opens(), await opens(), await opens()]
    sessions = [await start(engines[0], ttl=1000.0) for _ in range(20)]
    for until in (500, 800, 1000):
        clock.advance(until - (clock.now() - START).total_seconds())
        await asyncio.gather(*(engine.sweep(ROOT) for engine in engines))
    for session in sessions:
        assert await timeline(engines[0], session) == [("warn", 500.0), ("warn", 800.0), ("expire", 1000.0)]


@pytest.mark.parametrize("ttl", [0.0, -5.0, float("nan"), float("inf"), 1e300])
async def test_a_time_to_live_that_makes_no_sense_is_refused(engine: Engine, ttl: float) -> None:
    with pytest.raises(InvalidError):
        await start(engine, ttl=ttl)
    with pytest.raises(InvalidError):
        await start(engine, ttl=10.0, maximum=ttl)
    session = await start(engine)
    with pytest.raises(InvalidError):
        await engine.extend(session, ANA, seconds=ttl)
    assert len((await engine.find(ANA)).headers) == 1


async def test_a_session_cannot_be_made_past_its_own_maximum(engine: Engine) -> None:
    with pytest.raises(HoldfastError):
        await start(engine, ttl=None, maximum=100.0)
