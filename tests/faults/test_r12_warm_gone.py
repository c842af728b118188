"""R12, F12: PostgreSQL is gone. Writes go on until the flush queue is full, then they are refused and change nothing;
memory stays bounded; once it is back the lag goes to nothing and nothing is lost. It may also come and go.
``HOLDFAST_TEST_WARM_GONE`` says for how many seconds it is gone (3 here), ``HOLDFAST_TEST_WARM_FLAPS`` how often it
comes and goes every two seconds (3 here).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import FlushQueueFullError, StoreUnavailableError
from holdfast.model.access import Role
from holdfast.testing.postgres import PostgresServer, postgres_server
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import ANA, ROOT, Apart, Early, eventually, flushed, log, make, put, sound, waiting

GONE = float(os.environ.get("HOLDFAST_TEST_WARM_GONE", "3"))
FLAPS = int(os.environ.get("HOLDFAST_TEST_WARM_FLAPS", "3"))
BOUND = 200
DRAINED = 60.0
ROOM = 64 * 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
async def tiers(tmp_path: Path, redis: RedisServer, server: PostgresServer) -> AsyncIterator[Apart]:
    async with Apart.on(tmp_path / "home", redis, server, query="partitions=1", flush_queue=BOUND) as tiers:
        yield tiers


def held() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_r12_writes_go_on_to_the_bound_and_then_are_refused_and_nothing_is_lost(
    how: str, tiers: Apart, server: PostgresServer
) -> None:
    engine = await tiers.open()
    sessions = {await make(engine): 1 for _ in range(4)}
    await engine.flush(ROOT)
    if how == "killed":
        server.kill()
    else:
        server.pause()
    memory, begun, refused, most = held(), time.monotonic(), 0, 0
    new: list[str] = []
    try:
        while time.monotonic() - begun < GONE:
            for session, version in sessions.items():
                try:
                    sessions[session] = await put(engine, session, f"{version}" + "x" * 2_000, expected=version)
                except FlushQueueFullError as error:
                    refused += error.waiting >= BOUND
                    assert (await engine.read(session, ANA)).header.version == version
                    await asyncio.sleep(0.005)
            if len(new) < 5:
                new.append(await make(engine))
            most = max(most, await waiting(engine))
        assert refused > 0, sessions
        assert most <= BOUND
        grown = held() - memory
        assert grown < ROOM
        with pytest.raises(FlushQueueFullError):
            await make(engine)
        with pytest.raises(FlushQueueFullError):
            await engine.rename(new[0], ANA, "no")
        with pytest.raises(StoreUnavailableError):  # what rests must be whole in the warm tier
            await engine._tiering.rest(new[0])
        assert (await engine.header(new[0], ANA)).version == 1
    finally:
        if how == "killed":
            await asyncio.to_thread(server.start)
        else:
            server.resume()
    drained = await eventually(lambda: flushed(engine), DRAINED)
    print(f"R12 {how}: gone={GONE:g} s refused={refused} queue={most}")
    print(f"R12 {how}: memory grown by {grown / 2**20:.1f} MB, drained in {drained:.2f} s")
    for session, version in sessions.items():
        assert [entry.version for entry in await log(engine, session)] == list(range(1, version + 1))
        assert await put(engine, session, "later", expected=version) == version + 1
    assert not await sound(engine)


async def test_r12_what_is_asked_under_a_change_id_goes_on(tiers: Apart, server: PostgresServer) -> None:
    """Also where the log is longer than the hot tier keeps it. What was asked before is known there, but not what the
    answer was: then nothing is done again.
    """
    engine = await tiers.open()
    session, longer = await make(engine), await make(engine)
    await put(engine, longer, "first", expected=1, change_id="c0")
    for version in range(2, 60):
        await put(engine, longer, f"{version}", expected=version)
    await eventually(lambda: flushed(engine))
    await engine._journal.hot.trim(longer, below=40)
    server.kill()
    try:
        for _ in range(2):  # each sent twice has one effect
            await put(engine, session, "two", expected=1, change_id="c1")
            await put(engine, session, "three", key="chunks/9", expected=1, change_id="c2", rebase=True)
            await engine.rename(session, ANA, "renamed", change_id="c3")
            await engine.grant(session, ANA, "ben", Role.EDITOR, change_id="c4")
            await engine.touch(session, ANA, change_id="c5")
            await engine.undo(session, ANA, expected=3, change_id="c6")
            await put(engine, longer, "late", key="chunks/9", expected=50, change_id="c1", rebase=True)
            await engine.rename(longer, ANA, "renamed", change_id="c2")
        for expected in (1, 61):
            with pytest.raises(StoreUnavailableError):
                await put(engine, longer, "first", expected=expected, change_id="c0")
        assert (await engine.header(longer, ANA)).version == 61
        await engine.discard(session, ANA, change_id="c7")
    finally:
        await asyncio.to_thread(server.start)
    await eventually(lambda: flushed(engine), DRAINED)
    await engine.revive(session, ANA)
    entries = [entry.header.operation for entry in reversed(await log(engine, session))]
    assert entries == ["revive", "discard", "undo", "touch", "grant", "rename", "edit", "edit", "create"]
    assert await put(engine, longer, "first", expected=61, change_id="c0") == 2
    assert not await sound(engine)


async def test_f12_a_warm_tier_that_comes_and_goes_loses_nothing(tiers: Apart, server: PostgresServer) -> None:
    engines = [await tiers.open(), await tiers.open()]
    sessions = {await make(engines[0]): 1 for _ in range(4)}
    await engines[0].flush(ROOT)
    done = False

    async def write(session: str, engine: Engine) -> int:
        told = 1
        while not done:
            try:
                told = await put(engine, session, f"{told}", expected=told)
            except FlushQueueFullError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.01)
        return told

    writing = [asyncio.create_task(write(session, engines[n % 2])) for n, session in enumerate(sessions)]
    try:
        for flap in range(FLAPS):
            if flap % 2:
                server.kill()
            else:
                server.pause()
            await asyncio.sleep(1)
            if flap % 2:
                await asyncio.to_thread(server.start)
            else:
                server.resume()
            await asyncio.sleep(1)
    finally:
        done = True
    told = await asyncio.gather(*writing)
    drained = await eventually(lambda: flushed(engines[0]), DRAINED)
    print(f"F12 flaps={FLAPS} acknowledged={sum(told)} drained={drained:.2f} s")
    for session, version in zip(sessions, told, strict=True):
        warm = await engines[0]._journal.warm.head(session)
        assert warm is not None
        assert warm.version == version
        assert [entry.version for entry in await log(engines[0], session)] == list(range(1, version + 1))
    assert not await sound(engines[0])


async def test_teeth_a_flusher_that_acknowledges_first_leaves_the_warm_tier_behind(tiers: Apart) -> None:
    engine = await tiers.open(wrap=Early)
    session = await make(engine)
    await eventually(lambda: flushed(engine))
    await asyncio.sleep(0.5)
    tiers.warm.refuse = True
    tiers.warm.cut()
    await put(engine, session, "two", expected=1)
    await asyncio.sleep(0.5)
    engine._flushing._held.clear()  # type: ignore[union-attr]  # whoever held it dies
    tiers.warm.heal()
    await eventually(lambda: flushed(engine))
    warm = await (await tiers.open())._journal.warm.head(session)
    assert warm is None or warm.version < 2
