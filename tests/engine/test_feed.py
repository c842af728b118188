"""The feed: in order, without a gap, resumable, and honest when the past it stood in is gone."""

# ruff: noqa: PT012 - an edit is a block

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import InvalidCursorError, SessionGoneError
from holdfast.model.access import Principal
from holdfast.model.entry import Entry
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))


async def start(engine: Engine) -> str:
    return str((await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id)


async def put(engine: Engine, session: str, expected: int, text: str = "") -> None:
    async with engine.edit(session, ANA, expected=expected) as draft:
        draft.put("chunks/1", {"text": text or f"{expected}"})


async def test_a_page_ends_early_where_entries_are_large_and_nothing_is_left_out(opens: Any) -> None:
    engine = await opens()
    session = await start(engine)
    for version in range(1, 13):
        await put(engine, session, version, f"{version}" + "x" * 990_000)
    pages, cursor = [], None
    while (part := await engine.feed(session, ANA, after=cursor, limit=1_000)).entries:
        pages.append([entry.step for entry in part.entries])
        cursor = part.cursor
    assert [step for page in pages for step in page] == list(range(1, 14))
    assert max(map(len, pages)) == 10  # of 8 MB, and the first, small one
    past: list[int] = []
    while entries := await engine.history(session, ANA, before=past[-1] if past else None, limit=1_000):
        assert len(entries) <= 10
        past += [entry.step for entry in entries]
    assert past == list(range(13, 0, -1))
    followed: list[int] = []
    async for page in engine.follow(session, ANA):
        assert len(page.entries) <= 3  # of 1 MB
        followed += [entry.step for entry in page.entries]
        if followed[-1] == 13:
            break
    assert followed == list(range(1, 14))


async def whole(engine: Engine, session: str, *, limit: int = 7) -> list[Entry]:
    entries: list[Entry] = []
    cursor = None
    while True:
        page = await engine.feed(session, ANA, after=cursor, limit=limit)
        assert not page.reload
        assert len(page.entries) <= limit
        if not page.entries:
            return entries
        entries += page.entries
        cursor = page.cursor


async def test_the_feed_has_every_commit_and_step_in_order(opens: Any) -> None:
    engine = await opens()
    session = await start(engine)
    for version in range(1, 21):
        await put(engine, session, version)
        if version % 7 == 0:
            await engine.label(session, ANA, f"at {version}")
    await engine.preview(session, ANA)
    for each in (engine, await opens()):
        entries = await whole(each, session)
        assert [entry.step for entry in entries] == list(range(1, 25))
        assert [entry.header.operation for entry in entries if not entry.commit] == ["label", "label", "lock"]
        assert [entry.version for entry in entries if entry.commit] == list(range(1, 22))


async def test_a_reader_resumes_where_it_stood_and_sees_each_entry_once(opens: Any) -> None:
    engine, other = await opens(), await opens()
    session = await start(engine)
    seen: list[int] = []
    cursor = None
    for version in range(1, 30):
        await put(engine if version % 2 else other, session, version)
        if version % 3 == 0:
            page = await (other if version % 2 else engine).feed(session, ANA, after=cursor, limit=2)
            seen += [entry.step for entry in page.entries]
            cursor = page.cursor
    while (page := await engine.feed(session, ANA, after=cursor)).entries:
        seen += [entry.step for entry in page.entries]
        cursor = page.cursor
    assert seen == list(range(1, 31))


async def test_a_cursor_of_a_history_that_was_put_back_is_told_to_reload(opens: Any, tmp_path: Path) -> None:
    home = tmp_path / "one"
    engine = await opens(Settings(home=home))
    session = await start(engine)
    await put(engine, session, 1)
    copy = apsw.Connection(str(tmp_path / "copy.sqlite"))
    source = apsw.Connection(str(home / "holdfast.sqlite"))
    with copy.backup("main", source, "main") as backup:
        backup.step()
    for version in range(2, 6):
        await put(engine, session, version)
    ahead = (await engine.feed(session, ANA)).cursor
    with source.backup("main", copy, "main") as backup:
        backup.step()
    source.close()
    copy.close()
    again = await opens(Settings(home=home))
    page = await again.feed(session, ANA, after=ahead)
    assert (page.entries, page.reload) == ((), True)
    for version in range(2, 6):
        await put(again, session, version, f"another history {version}")
    page = await again.feed(session, ANA, after=ahead)  # as far as it was before, and not the same
    assert (page.entries, page.reload) == ((), True)
    await put(again, session, 6)
    page = await again.feed(session, ANA, after=ahead)
    assert (page.entries, page.reload) == ((), True)
    assert not (await again.feed(session, ANA, after=page.cursor)).reload


async def test_a_cursor_of_another_session_is_told_to_reload(engine: Engine) -> None:
    one, two = await start(engine), await start(engine)
    for version in (1, 2):
        await put(engine, one, version)
        await put(engine, two, version)
    middle = (await engine.feed(one, ANA, limit=2)).cursor
    assert (await engine.feed(two, ANA, after=middle)).reload
    assert (await engine.feed(two, ANA, after=(await engine.feed(one, ANA)).cursor)).reload


@pytest.mark.parametrize("cursor", ["", "x", "\ud800", "é", "a" * 10_000, "kqRwYWdlAaE"])
async def test_a_cursor_that_nobody_gave_out_is_refused(engine: Engine, cursor: str) -> None:
    session = await start(engine)
    with pytest.raises(InvalidCursorError):
        await engine.feed(session, ANA, after=cursor)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["of this engine", "of another engine on the file"])
async def test_following_sees_commits(opens: Any, elsewhere: bool) -> None:
    engine = await opens()
    writer = await opens() if elsewhere else engine
    session = await start(engine)
    seen: list[int] = []

    async def follow() -> None:
        async for page in engine.follow(session, ANA):
            seen.extend(entry.step for entry in page.entries)
            if seen[-1] >= 12:
                return

    following = asyncio.create_task(follow())
    for version in range(1, 12):
        await put(writer, session, version)
        await asyncio.sleep(0)
    await asyncio.wait_for(following, 20)
    assert seen == list(range(1, 13))


async def test_following_from_a_cursor_goes_on_behind_it(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, 1)
    cursor = (await engine.feed(session, ANA)).cursor
    following = engine.follow(session, ANA, after=cursor)
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    await put(engine, session, 2)
    page = await asyncio.wait_for(first, 20)
    assert [entry.step for entry in page.entries] == [3]


async def test_following_ends_once_the_session_is_purged(opens: Any, clock: ManualClock, settings: Settings) -> None:
    engine = await opens(Settings(home=settings.home, grace=0.0))
    session = await start(engine)
    following = engine.follow(session, ANA)
    await anext(following)
    await engine.discard(session, ANA)
    with pytest.raises(SessionGoneError):
        for _ in range(5):
            await asyncio.wait_for(anext(following), 20)


async def test_many_followers_each_see_everything(engine: Engine) -> None:
    session = await start(engine)

    async def follow() -> list[int]:
        seen: list[int] = []
        async for page in engine.follow(session, ANA):
            seen += [entry.step for entry in page.entries]
            if seen[-1] >= 31:
                break
        return seen

    following = [asyncio.create_task(follow()) for _ in range(20)]
    for version in range(1, 31):
        await put(engine, session, version)
        await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.gather(*following), 30) == [list(range(1, 32))] * 20
