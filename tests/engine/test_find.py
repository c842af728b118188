"""Finding sessions: by kind, status, owner and title, page by page, and only one's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import InvalidCursorError
from holdfast.model.access import Principal, Role
from holdfast.testing.clock import ManualClock

ANA, BEN, EVE = Principal("ana"), Principal("ben"), Principal("eve")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))


async def make(engine: Engine, who: Principal, title: str) -> str:
    return str((await engine.create(who, kind="knowledge", title=title, items=[("chunks/1", {"text": "x"})])).id)


async def pages(engine: Engine, who: Principal, **filters: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await engine.find(who, after=cursor, **filters)
        found += [header.id for header in page.headers]
        cursor = page.cursor
        if cursor is None:
            return found
        assert page.headers


@pytest.mark.parametrize("limit", [1, 7, 25, 1000])
@pytest.mark.parametrize("ticking", [True, False], ids=["made one after another", "made at the same instant"])
async def test_every_session_is_found_once_newest_first(
    opens: Any, clock: ManualClock, limit: int, ticking: bool
) -> None:
    engine = await opens()
    made = []
    for n in range(60):
        made.append(await make(engine, ANA if n % 3 else BEN, f"session {n}"))
        if ticking:
            clock.advance(0.001)
    for each in (engine, await opens()):
        everything = await pages(each, ROOT, limit=limit)
        assert sorted(everything) == sorted(made)
        if ticking:
            assert everything == made[::-1]
        assert set(await pages(each, BEN, limit=limit)) == set(made[::3])
        assert await pages(each, EVE, limit=limit) == []


async def test_filters_narrow_and_combine(engine: Engine, clock: ManualClock) -> None:
    lamp, oil = await make(engine, ANA, "The Lamp"), await make(engine, ANA, "the oil LAMP")
    boat = await make(engine, BEN, "the boat")
    await engine.grant(boat, BEN, "ana", Role.VIEWER)
    await engine.preview(oil, ANA)
    assert set(await pages(engine, ANA)) == {lamp, oil, boat}
    assert set(await pages(engine, ANA, text="lamp")) == {lamp, oil}
    assert await pages(engine, ANA, text="lamp", status="locked") == [oil]
    assert await pages(engine, ANA, owner="ben") == [boat]
    assert set(await pages(engine, ANA, kind="knowledge", status="draft")) == {lamp, boat}
    assert await pages(engine, ANA, kind="graph") == []
    await engine.discard(lamp, ANA)
    assert await pages(engine, ANA, status="discarded") == [lamp]
    await engine.rename(boat, BEN, "the ship")
    assert await pages(engine, ANA, text="ship") == [boat]


async def test_sessions_made_between_two_pages_move_nothing(engine: Engine, clock: ManualClock) -> None:
    made = []
    for n in range(10):
        made.append(await make(engine, ANA, f"{n}"))
        clock.advance(1)
    first = await engine.find(ANA, limit=4)
    await make(engine, ANA, "later")
    await engine.discard(made[0], ANA)
    rest = await engine.find(ANA, limit=100, after=first.cursor)
    assert [header.id for header in (*first.headers, *rest.headers)] == made[::-1]


@pytest.mark.parametrize("cursor", ["x", "\ud800", "a" * 5_000, "gaRmZWVk"])
async def test_a_cursor_that_nobody_gave_out_is_refused(engine: Engine, cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        await engine.find(ANA, after=cursor)


async def test_a_session_is_listed_from_the_grant_of_a_role_until_it_is_taken_back(opens: Any) -> None:
    engine, other = await opens(), await opens()
    session = await make(engine, ANA, "shared")
    assert await pages(other, BEN) == []
    await engine.grant(session, ANA, "ben", Role.VIEWER)
    assert await pages(other, BEN) == await pages(other, BEN, owner="ana", text="shared") == [session]
    await engine.grant(session, ANA, "eve", Role.VIEWER)
    assert await pages(other, BEN) == await pages(other, EVE) == await pages(other, ANA) == [session]
    await engine.grant(session, ANA, "ben", None)
    assert await pages(other, BEN) == []
    assert await pages(other, EVE) == [session]
    await engine.discard(session, ANA)
    await engine.revive(session, ANA)
    assert (await pages(other, BEN), await pages(other, EVE)) == ([], [session])


async def test_while_a_long_list_is_made_others_have_their_turn(engine: Engine) -> None:
    made = [await make(engine, ANA, f"session {n}") for n in range(50)]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await pages(engine, ROOT, text="session 0") == made[:1]
    seen, turns = turns, 0
    assert [one.session async for one in engine.verify(ROOT) if one.session]
    task.cancel()
    assert min(seen, turns) >= len(made) // 16
