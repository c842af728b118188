"""What a flush tells of the dead letters: how many it has written, and how many have come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.engine.tiering import Flushed
from holdfast.ports.hot import Backlog
from holdfast.testing.broken import Around
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import ROOT, Apart, make, put, sound


@pytest.fixture
async def tiers(tmp_path: Path, redis: RedisServer, postgres: PostgresServer) -> AsyncIterator[Apart]:
    async with Apart.on(tmp_path / "home", redis, postgres, query="timeout=10") as tiers:
        yield tiers


class Late(Around):
    """A hot store far away: what it tells of its queue is half a second old when it comes."""

    async def backlog(self) -> Backlog:
        told: Backlog = await self._store.backlog()  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)
        return told


async def still(tiers: Apart, **more: Any) -> Engine:
    """An engine that flushes when it is asked to, and not before."""
    engine = await tiers.open(**more)
    engine._flushing._running.cancel()  # type: ignore[union-attr]
    return engine


async def bury(engine: Engine) -> None:
    """Let all that waits to be flushed be dead letters."""
    hot = engine._tiering._tiered
    assert hot is not None
    await hot.bury(await hot.claim("w", limit=100, idle=0.0), "broken")


def tear(tiers: Apart, session: str, digest: str) -> None:
    """Let the warm tier have a session with another digest."""
    schema = (tiers.settings.warm or "").rpartition("schema=")[2]
    tiers.postgres.run(f"UPDATE {schema}.session SET digest = '\\x{digest}' WHERE id = '{session}'")


async def test_a_flush_counts_the_writes_that_waited_and_nothing_twice(tiers: Apart) -> None:
    engine = await still(tiers)
    one, _ = await make(engine, 4), await make(engine, 1)
    assert await engine.flush(ROOT) == Flushed(flushed=7)
    await put(engine, one, "more")
    assert await engine.flush(ROOT, retry=True) == Flushed(flushed=1)
    assert await engine.flush(ROOT) == Flushed()


async def test_of_dead_letters_tried_again_those_that_come_back_are_told_from_those_that_are_written(
    tiers: Apart,
) -> None:
    engine = await still(tiers)
    torn = await make(engine)
    await engine.flush(ROOT)
    kept = (await engine._journal.warm.head(torn)).digest.hex()  # type: ignore[union-attr]
    tear(tiers, torn, "00" * 32)
    await put(engine, torn, "later")
    await make(engine, 2)
    await make(engine, 1)
    await bury(engine)
    await make(engine)  # waits on the queue as any write does
    assert await engine.flush(ROOT) == Flushed(flushed=1, buried=3)
    assert await engine.flush(ROOT, retry=True) == Flushed(flushed=5, recovered=2, buried=1)
    assert [letter.session for letter in (await engine.tiers(ROOT)).buried] == [torn]
    assert await engine.flush(ROOT, retry=True) == Flushed(buried=1)
    tear(tiers, torn, kept)
    assert await engine.flush(ROOT, retry=True) == Flushed(flushed=1, recovered=1)
    assert not await sound(engine)


async def test_letters_that_another_process_takes_first_are_told_of_as_well(tiers: Apart) -> None:
    """Every replica flushes: which of them has written a letter is nobody's business."""
    engine = await still(tiers)
    for _ in range(4):
        await make(engine, 1)
    await bury(engine)
    await tiers.open()  # it goes through the queue by itself
    told = await engine.flush(ROOT, retry=True)
    assert (told.recovered, told.buried) == (4, 0)


async def test_all_letters_are_tried_however_many_they_are(tiers: Apart) -> None:
    """More than are claimed at a time, and all put back on the queue at the same moment."""
    engine = await still(tiers, wrap=Late)
    many = 900
    for start in range(0, many, 100):
        await asyncio.gather(*(make(engine) for _ in range(start, start + 100)))
    for _ in range(many // 100):
        await bury(engine)
    assert (await engine._tiering.state()).flush.buried == many  # type: ignore[union-attr]
    assert await engine.flush(ROOT, retry=True) == Flushed(flushed=many, recovered=many)
