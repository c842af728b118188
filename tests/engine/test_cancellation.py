"""A caller that goes away: what was sent is awaited, what was not is not there, and asking again tells which."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.model.access import Principal
from holdfast.model.session import Write
from holdfast.ports.hot import HotStore

ANA = Principal("ana")
KEYS = ("chunks/a", "chunks/b", "chunks/c")


async def start(engine: Engine) -> str:
    return str((await engine.create(ANA, kind="knowledge", items=[(key, {"text": "0"}) for key in KEYS])).id)


async def put(engine: Engine, session: str, expected: int, change_id: str) -> int:
    async with engine.edit(session, ANA, expected=expected, change_id=change_id) as draft:
        for key in KEYS:
            draft.put(key, {"text": change_id})
    assert draft.committed is not None
    return draft.committed.version


async def test_a_cancelled_edit_has_landed_by_the_time_the_cancellation_goes_on(opens: Any) -> None:
    sent = asyncio.Event()
    outcomes: list[bool] = []

    class Telling:
        def __init__(self, store: HotStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def write(self, write: Write, **more: Any) -> bool:
            writing = asyncio.ensure_future(self._store.write(write, **more))
            sent.set()
            try:
                return await writing
            finally:
                outcomes.append(writing.done())

    engine = await opens(wrap=Telling)
    session = await start(engine)
    outcomes.clear()
    for version in range(1, 21):
        sent.clear()
        editing = asyncio.create_task(put(engine, session, version, f"c{version}"))
        await sent.wait()
        editing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await editing
        again = await put(engine, session, version, f"c{version}")
        assert again == version + 1
    log = await engine.history(session, ANA, limit=100)
    assert [entry.version for entry in log] == list(range(21, 0, -1))
    assert [entry.header.change for entry in log[:-1]] == [f"c{version}" for version in range(20, 0, -1)]


async def test_edits_cancelled_anywhere_leave_no_half_state_and_agree_when_asked_again(opens: Any) -> None:
    engine, other = await opens(), await opens()
    session = await start(engine)
    random, cancelled, version = Random(20261120), 0, 1
    for n in range(120):
        editing = asyncio.create_task(put(engine, session, version, f"c{n}"))
        for _ in range(random.randint(0, 12)):
            await asyncio.sleep(0)
        if random.random() < 0.5:
            await asyncio.sleep(random.random() * 0.002)
        editing.cancel()
        try:
            await editing
        except asyncio.CancelledError:
            cancelled += 1
        seen = await other.read(session, ANA)
        assert len({item.body["text"] for item in seen.items}) == 1
        assert seen.version in (version, version + 1)
        version = await put(other, session, version, f"c{n}")
        assert {item.body["text"] for item in (await engine.read(session, ANA)).items} == {f"c{n}"}
    print(f"F07 cancelled={cancelled} of 120, versions={version}")
    assert cancelled > 3
    assert version == 121
    assert [entry.version for entry in await engine.history(session, ANA, limit=1000)] == list(range(121, 0, -1))


async def test_a_cancelled_creation_is_found_or_made_by_asking_again(engine: Engine) -> None:
    for n in range(30):
        making = asyncio.create_task(
            engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "x"})], change_id=f"make {n}")
        )
        for _ in range(n % 6):
            await asyncio.sleep(0)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "x"})], change_id=f"make {n}")
    assert len((await engine.find(ANA, limit=1000)).headers) == 30


async def test_an_edit_cancelled_inside_its_block_changes_nothing(engine: Engine) -> None:
    session = await start(engine)

    async def stuck() -> None:
        async with engine.edit(session, ANA, expected=1) as draft:
            draft.put(KEYS[0], {"text": "never"})
            await asyncio.Event().wait()

    editing = asyncio.create_task(stuck())
    await asyncio.sleep(0.01)
    editing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await editing
    assert (await engine.header(session, ANA)).step == 1


async def test_an_engine_that_is_closed_has_finished_what_was_sent(opens: Any, settings: Any, clock: Any) -> None:
    from holdfast.compose import open_engine

    async with open_engine(settings, clock=clock) as engine:
        sessions = [await start(engine) for _ in range(20)]
        edits = [asyncio.create_task(put(engine, session, 1, "last")) for session in sessions]
        for _ in range(5):
            await asyncio.sleep(0)
    answers = await asyncio.gather(*edits, return_exceptions=True)
    again = await opens()
    for session, answer in zip(sessions, answers, strict=True):
        version = (await again.read(session, ANA)).version
        if answer == 2:
            assert version == 2
        assert await put(again, session, 1, "last") == 2
