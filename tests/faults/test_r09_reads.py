"""R09: a read that begins after an edit was acknowledged sees it or a later one, through whichever process it is made
and whichever tier the session is in by then. ``HOLDFAST_TEST_READS`` says how many reads (2,000 here).
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError, SessionBusyError
from holdfast.testing.broken import Trusting
from holdfast.testing.tiers import ANA, Apart, log, make, put, sound

READS = int(os.environ.get("HOLDFAST_TEST_READS", "2000"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "9"))
SESSIONS, ENGINES = 6, 3


class Tally:
    """``refused`` are the errors that reads and writes were answered with: of an older state some are noticed."""

    reads = stale = rested = archived = 0

    def __init__(self) -> None:
        self.refused: list[str] = []


async def seen(engine: Engine, session: str, how: int) -> int:
    """The version that a read of some sort is of."""
    if how == 0:
        return (await engine.header(session, ANA)).version
    if how == 1:
        return (await engine.history(session, ANA, limit=1))[0].version
    item = (await engine.read(session, ANA)).get("chunks/1")
    assert item is not None
    return 1 if item.body["text"].startswith("one") else int(item.body["text"]) + 1


async def play(engines: list[Engine], reads: int) -> tuple[Tally, dict[str, int]]:
    """Write, move and read a few sessions at random from several processes; count the reads that were of old."""
    chance, tally = random.Random(SEED), Tally()
    acked = {await make(engines[0]): 1 for _ in range(SESSIONS)}
    done = False

    async def write(session: str) -> None:
        while not done:
            engine, version = chance.choice(engines), acked[session]
            try:
                acked[session] = await put(engine, session, f"{version}", expected=version)
            except HoldfastError as error:
                tally.refused.append(repr(error))
            await asyncio.sleep(chance.choice((0, 0.002, 0.15)))  # long enough, at times, to be set to rest

    async def move() -> None:
        while not done:
            tiering, session = chance.choice(engines)._tiering, chance.choice([*acked])
            if chance.random() < 0.1:
                try:
                    await tiering.archive(session)
                    tally.archived += 1
                except SessionBusyError:
                    pass
            else:
                tally.rested += await tiering.rest(session)

    async def read() -> None:
        while tally.reads < reads:
            tally.reads += 1
            engine, session = chance.choice(engines), chance.choice([*acked])
            at_least = acked[session]
            try:
                tally.stale += await seen(engine, session, chance.randrange(3)) < at_least
            except HoldfastError as error:
                tally.refused.append(repr(error))
            await asyncio.sleep(chance.random() / 200)

    working = [asyncio.create_task(write(session)) for session in acked]
    working += [asyncio.create_task(move()) for _ in range(2)]
    await asyncio.gather(*(read() for _ in range(8)))
    done = True
    await asyncio.gather(*working)
    return tally, acked


async def test_r09_no_read_is_older_than_what_was_acknowledged_before_it(tiers: Apart) -> None:
    engines = [await tiers.open(proxied=False) for _ in range(ENGINES)]
    tally, acked = await play(engines, READS)
    edits = sum(acked.values())
    print(f"R09 seed={SEED} reads={tally.reads} stale={tally.stale} refused={len(tally.refused)}")
    print(f"R09 edits={edits} rested={tally.rested} archived={tally.archived}")
    assert not tally.refused
    assert tally.stale == 0
    assert tally.rested >= READS // 400
    for session, version in acked.items():
        assert [entry.version for entry in await log(engines[1], session)] == list(range(1, version + 1))
    assert not await sound(engines[0])


async def test_teeth_a_head_that_is_remembered_is_caught(tiers: Apart) -> None:
    wrap: Any = Trusting
    engines = [await tiers.open(proxied=False, wrap=wrap) for _ in range(ENGINES)]
    tally, _ = await play(engines, 500)
    assert tally.stale + len(tally.refused) > 0
