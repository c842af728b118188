"""R06: whoever opens a session that rests brings it up, once; what is done to it meanwhile stays done."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.engine.engine import Engine
from holdfast.testing.broken import Around
from holdfast.testing.killing import Stepping
from holdfast.testing.tiers import ANA, ROOT, Apart, log, make, put, rest, sound


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


class Slow(Around):
    """Brings a session up as slowly as it is told."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def install(self, *given: Any, **more: Any) -> bool:
        self.begun.set()
        await self.go_on.wait()
        return bool(await self._store.install(*given, **more))  # type: ignore[attr-defined]


async def slowly(tiers: Apart) -> tuple[Engine, Slow]:
    """An engine that brings sessions up slowly."""
    slow: list[Slow] = []

    def wrap(store: Any) -> Any:
        slow.append(Slow(store))
        return slow[0]

    return await tiers.open(wrap=wrap), slow[0]


async def test_keys_rotated_while_a_session_comes_up_are_rotated_for_it_too(tiers: Apart) -> None:
    (engine, slow), other = await slowly(tiers), await tiers.open()
    session = await make(other, 3)
    resting = await make(other)
    for one in (session, resting):
        await rest(other, one)
    reading = asyncio.create_task(engine.read(session, ANA))
    await slow.begun.wait()
    rotated = await other.rotate_keys(ROOT, drop=True)
    assert rotated.dropped
    slow.go_on.set()
    assert (await reading).header.version == 4
    third = await tiers.open()
    for one, version in ((session, 4), (resting, 1)):
        assert (await third.read(one, ANA)).header.version == version
        await put(third, one, "later", expected=version)
    assert not await sound(third)


async def test_a_session_archived_while_another_process_brings_it_up_keeps_its_log(tiers: Apart) -> None:
    (engine, slow), other = await slowly(tiers), await tiers.open()
    session = await make(other, 60)
    await rest(other, session)
    reading = asyncio.create_task(engine.read(session, ANA))
    await slow.begun.wait()
    await other._tiering.archive(session)
    slow.go_on.set()
    assert (await reading).header.version == 61
    assert [entry.version for entry in await log(engine, session)] == list(range(1, 62))
    await put(engine, session, "later", expected=61)
    assert not await sound(engine)
