"""The workloads between the tiers: how long the first reader of a session waits that lies in PostgreSQL, or in S3.

Who reads has seen nothing of it yet. The servers are on this machine; a proxy makes the way to PostgreSQL and to S3
longer, for the floor too: one bare SELECT of the same bytes, one bare GET where they lie in S3, and one bare HSET.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import obstore
from obstore.store import S3Store

from holdfast.bench import servers, workloads
from holdfast.bench.redis import Opened, opened
from holdfast.bench.redis_floor import BareRedis, Sizes
from holdfast.bench.report import Row
from holdfast.bench.rounds import Plan, Side, compare, middle
from holdfast.bench.workloads import FEW, LIMITS, WHO, Writer
from holdfast.engine.engine import Engine
from holdfast.settings import Settings
from holdfast.testing.proxy import Proxy

if TYPE_CHECKING:
    from obstore.store import S3Config

ADDED = {"": 0.0, ".1ms": 0.001, ".10ms": 0.010, ".50ms": 0.050}
"""Seconds by which every round trip to PostgreSQL and to S3 takes longer, by what the name of the row ends in."""
Leave = Callable[[Engine, str], Awaitable[object]]


async def tiers_rehydrate(home: Path, plan: Plan) -> list[Row]:
    """Sessions that lie in PostgreSQL, set to rest by ``suspend``."""

    async def leave(engine: Engine, session: str) -> None:
        await engine.suspend(session, WHO)

    return await _rows("tiers.rehydrate", home, plan, leave, cold=False)


async def tiers_restore(home: Path, plan: Plan) -> list[Row]:
    """Sessions that lie in S3, and of which PostgreSQL has a stub."""

    async def leave(engine: Engine, session: str) -> None:
        await engine.archive(session, WHO)

    return await _rows("tiers.restore", home, plan, leave, cold=True)


# -- parts -------------------------------------------------------------------------------------------------------------


class Tiers:
    """The servers of a run, and the ways to them.

    Attributes:
        settings: of an engine on them, by the ways that can be made longer.
        endpoint: where S3 is by its way, None where there is none.
    """

    def __init__(self, settings: Settings, ways: Sequence[Proxy], endpoint: str | None = None) -> None:
        self.settings, self.endpoint, self._ways = settings, endpoint, ways

    @contextlib.contextmanager
    def away(self, seconds: float) -> Iterator[None]:
        """PostgreSQL and S3 are so much further away, there and back."""
        for way in self._ways:
            way.delay = seconds / 2
        try:
            yield
        finally:
            for way in self._ways:
                way.delay = 0.0


class BareTiers:
    """The floor: rows in PostgreSQL, an object in S3, a hash in Redis, each in one piece of the bytes ours have."""

    def __init__(self, redis: BareRedis, warm: asyncpg.Connection, cold: S3Store | None) -> None:
        self._redis, self._warm, self._cold = redis, warm, cold

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, tiers: Tiers) -> AsyncIterator[BareTiers]:
        settings = tiers.settings
        cold = None
        if tiers.endpoint is not None:
            config: S3Config = {
                "endpoint": tiers.endpoint,
                "virtual_hosted_style_request": False,
                "region": "us-east-1",
                "access_key_id": servers.CREDENTIALS["AWS_ACCESS_KEY_ID"],
                "secret_access_key": servers.CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            }
            cold = S3Store(servers.BUCKET, prefix="bare", config=config, client_options={"allow_http": True})
        warm = await asyncpg.connect(settings.warm_url)
        try:
            async with contextlib.aclosing(BareRedis(settings.hot_url)) as redis:
                await warm.execute("CREATE TABLE IF NOT EXISTS public.bare (id text, sealed bytea)")
                yield cls(redis, warm, cold)
        finally:
            await warm.close()

    async def keep(self, session: str, sizes: Sizes) -> None:
        """Have a session with items of these sizes."""
        items = [os.urandom(size) for size in sizes.items]
        if self._cold is not None:
            await obstore.put_async(self._cold, session, b"".join(items))
            items = [os.urandom(sizes.entry)]
        await self._warm.executemany("INSERT INTO public.bare VALUES ($1, $2)", [(session, item) for item in items])

    async def bring(self, session: str) -> None:
        """Read it, and put it into Redis."""
        fields = [row[0] for row in await self._warm.fetch("SELECT sealed FROM public.bare WHERE id = $1", session)]
        if self._cold is not None:
            fields.append(bytes(await (await obstore.get_async(self._cold, session)).bytes_async()))
        await self._redis.put(f"bare:{session}", fields)


async def _rows(name: str, home: Path, plan: Plan, leave: Leave, *, cold: bool) -> list[Row]:
    """A row for each of the ways, and one for how much longer it takes with 2,000 items."""
    async with _tiers(home, cold=cold) as tiers, BareTiers.on(tiers) as bare:
        async with opened(tiers.settings) as first:
            few = [(await Writer.create(first.engine, FEW)).session for _ in range(plan.restored)]
            large = (await Writer.create(first.engine, workloads.MANY)).session
            warming = (await Writer.create(first.engine, FEW)).session
            for session in few:
                await bare.keep(session, await Sizes.of(first.store, session))
            await asyncio.gather(*(leave(first.engine, session) for session in (*few, large, warming)))

        def ours(sessions: Sequence[str], added: float) -> Side:
            async def side(seconds: float) -> float:
                async with opened(tiers.settings) as fresh:
                    await _warm(fresh, warming)
                    with tiers.away(added):
                        took = [await _timed(fresh.engine.read(session, WHO)) for session in sessions]
                    await asyncio.gather(*(leave(fresh.engine, session) for session in (*sessions, warming)))
                return middle(took) / 1_000

            return side

        def floor(added: float) -> Side:
            async def side(seconds: float) -> float:
                with tiers.away(added):
                    return middle([await _timed(bare.bring(session)) for session in few]) / 1_000

            return side

        rows = [
            await compare(f"{name}{end}", "ms", ours(few, added), floor(added), plan.rounds, 0.0)
            for end, added in ADDED.items()
        ]
        one = few[:1]
        return [*rows, await compare(f"{name}.growth", "ms", ours([large], 0.0), ours(one, 0.0), plan.rounds, 0.0)]


async def _warm(fresh: Opened, session: str) -> None:
    """Have the connections made: ours is the time of a service that runs, and not of one that starts."""
    for _ in range(servers.LANES):
        await fresh.engine.read(session, WHO)


async def _timed(work: Awaitable[object]) -> int:
    start = time.perf_counter_ns()
    await work
    return time.perf_counter_ns() - start


@contextlib.asynccontextmanager
async def _tiers(home: Path, *, cold: bool) -> AsyncIterator[Tiers]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(servers.redis(home, "always"))
        postgresql = stack.enter_context(servers.postgresql())
        ways = [await stack.enter_async_context(Proxy("127.0.0.1", postgresql.port).listening())]
        endpoint = None
        if cold:
            s3 = stack.enter_context(servers.s3(home))
            ways.append(await stack.enter_async_context(Proxy("127.0.0.1", s3.port).listening()))
            endpoint = f"http://127.0.0.1:{ways[1].port}"
        settings = Settings(
            home=home,
            hot=redis,
            warm=_by(postgresql.url, ways[0].port),
            cold=f"s3://{servers.BUCKET}/ours?endpoint={endpoint}" if cold else None,
            limits=LIMITS,
        )
        yield Tiers(settings, ways, endpoint)


def _by(url: str, port: int) -> str:
    """The same URL by another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))
