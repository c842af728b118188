"""The workloads of the Redis hot tier: the engine and a bare script by turns, on one server.

The engine does what it does in the rows of the embedded tiers: an edit is sealed, audited and durable on return. Its
warm tier is a SQLite file of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast.bench import servers, workloads
from holdfast.bench.redis_floor import BareRedis, BareSession, Sizes
from holdfast.bench.report import Row
from holdfast.bench.rounds import Plan, Side, beside, compare, middle, rate, spanning, times
from holdfast.bench.workloads import FEW, LIMITS, TASKS, WHO, Writer, check
from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.ports.hot import HotStore
from holdfast.settings import Settings


async def redis_commits(home: Path, plan: Plan) -> list[Row]:
    """One caller, then 32 tasks, each on a session of its own; on disk before the answer (``appendfsync always``)."""
    return await _commits(home, plan, "always", "")


async def redis_commits_everysec(home: Path, plan: Plan) -> list[Row]:
    """The same where Redis syncs its file once a second, and nobody waits for the disk."""
    return await _commits(home, plan, "everysec", ".everysec")


async def redis_load20(home: Path, plan: Plan) -> list[Row]:
    """A session of 20 items of 1 KB, read again and again; then sessions that this process has not seen yet."""
    async with _pair(home, "always", plan.sessions) as pair:
        writer, session = pair.writers[0], pair.sessions[0]

        async def ours() -> None:
            check(len((await pair.engine.read(writer.session, WHO)).items))

        async def floor() -> None:
            check(len(await session.load()) - 1)

        async def unseen(seconds: float) -> float:
            async with opened(pair.settings) as (engine, _):
                for _ in range(servers.LANES):  # its connections are made before anything is measured
                    await engine.read(writer.session, WHO)
                took = []
                for other in pair.writers[1:]:
                    start = time.perf_counter_ns()
                    items = (await engine.read(other.session, WHO)).items
                    took.append(time.perf_counter_ns() - start)
                    check(len(items))
                return middle(took)

        async def all_bare(seconds: float) -> float:
            took = []
            for other in pair.sessions[1:]:
                start = time.perf_counter_ns()
                fields = await other.load()
                took.append(time.perf_counter_ns() - start)
                check(len(fields) - 1)
            return middle(took)

        for side in (times(ours), times(floor)):
            await side(plan.seconds / 4)
        return [
            await compare("redis.load20", "µs", times(ours), times(floor), plan.rounds, plan.seconds / 3),
            await compare("redis.load20.first", "µs", unseen, all_bare, plan.rounds, 0.0),
        ]


async def redis_growth(home: Path, plan: Plan) -> list[Row]:
    """A commit to a session of 2,000 items, beside one to a session of 20."""
    with servers.redis(home, "always") as url:
        async with opened(settings_of(home, url)) as (engine, _):
            large, small = await Writer.create(engine, workloads.MANY), await Writer.create(engine, FEW)
            at_many, at_few = _lone(large), _lone(small)
            for side in (at_many, at_few):
                await side(plan.seconds / 4)
            return [await compare("redis.growth", "µs", at_many, at_few, plan.rounds, plan.seconds / 2)]


WORKLOADS: tuple[Callable[[Path, Plan], Awaitable[list[Row]]], ...] = (
    redis_commits,
    redis_commits_everysec,
    redis_load20,
    redis_growth,
)


# -- parts -------------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """An engine with sessions on a Redis server, and bare sessions on the same, of the same sizes."""

    settings: Settings
    engine: Engine
    writers: list[Writer]
    bare: BareRedis
    sizes: list[Sizes]
    sessions: list[BareSession]


async def _commits(home: Path, plan: Plan, fsync: str, suffix: str) -> list[Row]:
    async with _pair(home, fsync, TASKS) as pair:
        watched = await pair.bare.sessions(pair.sizes, "watched")
        one = {"redis.commit.one": _lone(pair.writers[0]), "redis.watch.one": times(watched[0].watched)}
        many: dict[str, Side] = {
            "redis.commit.tasks32": _rate([writer.commit for writer in pair.writers]),
            "redis.watch.tasks32": _rate([session.watched for session in watched]),
        }
        bare_one, bare_many = times(pair.sessions[0].commit), _rate([session.commit for session in pair.sessions])
        rows = []
        for unit, sides, floor in (("µs", one, bare_one), ("1/s", many, bare_many)):
            chosen = {f"{name}{suffix}": side for name, side in sides.items() if not suffix or ".commit." in name}
            for side in (*chosen.values(), floor):
                await side(plan.seconds / 4)
            rows += await beside(chosen, unit, _shortening(floor, pair, watched), plan.rounds, plan.seconds / 2)
        return rows


def _lone(writer: Writer) -> Side:
    async def side(seconds: float) -> float:
        return middle([await writer.commit() async for _ in spanning(seconds)])

    return side


def _rate(work: Sequence[Callable[[], Awaitable[object]]]) -> Side:
    async def side(seconds: float) -> float:
        return await rate(work, seconds)

    return side


def _shortening(floor: Side, pair: Pair, watched: Sequence[BareSession]) -> Side:
    """The floor, which afterwards forgets its logs: a run is not to fill the memory."""

    async def side(seconds: float) -> float:
        figure = await floor(seconds)
        for session in (*pair.sessions, *watched):
            await session.shorten()
        return figure

    return side


class Opened(NamedTuple):
    """An engine, and the hot store it has."""

    engine: Engine
    store: HotStore


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Opened]:
    """An engine that has seen nothing yet."""
    stores: list[HotStore] = []

    def seen(store: HotStore) -> HotStore:
        stores.append(store)
        return store

    async with open_engine(settings, wrap=seen) as engine:
        yield Opened(engine, *stores)


def settings_of(home: Path, url: str) -> Settings:
    """Redis before a SQLite file. The flusher runs; only its queue's bound is out of the way."""
    warm = f"sqlite://{home}/warm.sqlite"
    return Settings(home=home, hot=url, warm=warm, limits=LIMITS, flush_queue=10_000_000)


@contextlib.asynccontextmanager
async def _pair(home: Path, fsync: str, count: int) -> AsyncIterator[Pair]:
    with servers.redis(home, fsync) as url:
        settings = settings_of(home, url)
        async with opened(settings) as (engine, store), contextlib.aclosing(BareRedis(url)) as bare:
            writers = await asyncio.gather(*(Writer.create(engine, FEW) for _ in range(count)))
            for _ in range(2):  # the bare ones take their sizes from an edit, not from the creation
                await asyncio.gather(*(writer.commit() for writer in writers))
            sizes = [await Sizes.of(store, writer.session) for writer in writers]
            yield Pair(settings, engine, writers, bare, sizes, await bare.sessions(sizes))
