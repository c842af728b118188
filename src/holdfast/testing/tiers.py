"""A Redis and a PostgreSQL for one test, engines on the two, and what comes between an engine and its stores.

What stands around all three stores is put there by ``around``: the steps of every port, to kill at or to fail at.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from holdfast import compose
from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import StoreUnavailableError
from holdfast.model.access import Principal
from holdfast.model.entry import Entry
from holdfast.settings import Settings
from holdfast.testing.broken import Around
from holdfast.testing.killing import Stepping
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.proxy import Proxy
from holdfast.testing.servers import RedisServer

ANA = Principal("ana")
BEN = Principal("ben")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
_number = itertools.count(1)
_BEYOND = 2**50  # further than any session goes


class Apart:
    """The tiers of a test: where they are, proxies before both, and engines opened on them.

    Attributes:
        hot, warm: the proxies; without faults they only pass on.
        direct: settings that go past the proxies.
    """

    def __init__(
        self, home: Path, redis: RedisServer, postgres: PostgresServer, hot: Proxy, warm: Proxy, settings: Settings
    ) -> None:
        self.home, self.redis, self.postgres, self.hot, self.warm = home, redis, postgres, hot, warm
        self.settings = settings
        url = f"{redis.url}?{(settings.hot or '').partition('?')[2]}"
        past = (settings.warm or "").replace(f":{warm.port}/", f":{postgres.port}/")
        self.direct = replace(settings, hot=url, warm=past)
        self._stack = contextlib.AsyncExitStack()

    @classmethod
    @contextlib.asynccontextmanager
    async def on(
        cls, home: Path, redis: RedisServer, postgres: PostgresServer, *, query: str = "", **settings: Any
    ) -> AsyncIterator[Apart]:
        """Tiers that nobody has used: a prefix and a schema of their own.

        Args:
            query: more of the hot tier's URL, such as ``durability=hot``.
            settings: of the engines.
        """
        async with Proxy(*redis.address).listening() as hot, Proxy("127.0.0.1", postgres.port).listening() as warm:
            prefix = f"prefix=t{next(_number)}" + (f"&{query}" if query else "")
            given = Settings(
                home=home,
                hot=f"redis://127.0.0.1:{hot.port}?{prefix}",
                warm=postgres.fresh_url().replace(f":{postgres.port}/", f":{warm.port}/"),
                **settings,
            )
            tiers = cls(home, redis, postgres, hot, warm, given)
            async with tiers._stack:
                yield tiers

    async def open(self, *, proxied: bool = True, settings: Settings | None = None, **more: Any) -> Engine:
        """Open an engine, closed with the tiers; each has a connection of its own, as another process would."""
        given = settings or (self.settings if proxied else self.direct)
        return await self._stack.enter_async_context(open_engine(given, **more))


class Idle(Around):
    """A hot store whose flush queue looks empty to whoever claims: nothing is flushed but what is asked for by name."""

    async def claim(self, worker: str, **more: Any) -> list[Any]:
        return []


class Early(Around):
    """Broken on purpose: it takes an entry off the queue as soon as it is claimed."""

    async def claim(self, worker: str, **more: Any) -> list[Any]:
        store: Any = self._store
        claimed: list[Any] = await store.claim(worker, **more)
        await store.acknowledge([(one, _BEYOND) for one in claimed])
        return claimed


@contextlib.contextmanager
def around(wrap: Callable[[Any, str], Any]) -> Iterator[None]:
    """Engines opened in this block have ``wrap(store, tier)`` in the place of each of their three stores."""
    composing: Any = compose
    before = composing._guarded

    def guarded(store: Any, port: type, tier: str, *more: Any) -> Any:
        return before(wrap(store, tier), port, tier, *more)

    composing._guarded = guarded
    try:
        yield
    finally:
        composing._guarded = before


def stepping(passed: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
    """``around`` with ``Stepping``: each call of each port is two steps, such as ``before warm.append``."""
    return around(lambda store, tier: Stepping(store, tier, passed))


_COUNTED: ContextVar[list[str] | None] = ContextVar("counted", default=None)
"""The steps that what runs here is counted among."""


class Tripping:
    """Fails at the k-th step after it was armed, as a store does that does not answer: before a call, which then was
    not made, or after it, so that nobody learns what came of it.

    Only what is done for whoever armed it counts, in its task or in one begun from there: what engines do meanwhile of
    their own accord, such as to flush or to write the trail, would come at another step each time.

    Attributes:
        steps: those passed since it was armed, in order.
    """

    def __init__(self, tiers: tuple[str, ...] = ("warm", "cold")) -> None:
        self.tiers, self.steps = tiers, list[str]()
        self._nth: int | None = None

    def arm(self, nth: int | None) -> None:
        """Count from now on; None: and never fail."""
        self._nth, self.steps = nth, []
        _COUNTED.set(self.steps)

    def passed(self, step: str) -> None:
        tier = step.split()[1].partition(".")[0]
        if tier not in self.tiers or _COUNTED.get() is not self.steps:
            return
        self.steps.append(step)
        if self._nth is not None and len(self.steps) == self._nth:
            raise StoreUnavailableError(tier, step)


async def put(engine: Engine, session: str, text: str, *, key: str = "chunks/1", **more: Any) -> int:
    """Write a chunk on top of what is there, whoever else writes; the version it became."""
    more.setdefault("expected", None)
    if more["expected"] is None:
        more["expected"] = (await engine.header(session, ANA)).version
    async with engine.edit(session, ANA, **more) as draft:
        draft.put(key, {"text": text})
    assert draft.committed is not None
    return draft.committed.version


async def make(engine: Engine, edits: int = 0, *, items: int = 2, text: str = "one", **more: Any) -> str:
    """A session with so many chunks and edits."""
    bodies = [(f"chunks/{number}", {"text": f"{text} {number}"}) for number in range(1, items + 1)]
    made = await engine.create(ANA, kind="knowledge", title="t", items=bodies, **more)
    for version in range(1, edits + 1):
        await put(engine, made.header.id, f"{text} at {version}", expected=version)
    return made.header.id


async def log(engine: Engine, session: str) -> list[Entry]:
    """The whole log, oldest first."""
    entries: list[Entry] = []
    while page := await engine.history(session, ANA, before=entries[-1].header.step if entries else None, limit=500):
        entries += page
    return entries[::-1]


async def sound(engine: Engine, session: str | None = None, **more: Any) -> list[Any]:
    """What does not add up, by ``verify``."""
    return [found async for found in engine.verify(ROOT, session, **more) if not found.ok]


async def eventually(true: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> float:
    """Wait until something is so; how long that took."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not await true():
        assert loop.time() - begun < seconds, f"it is not so after {seconds:g} s"
        await asyncio.sleep(0.01)
    return loop.time() - begun


async def flushed(engine: Engine) -> bool:
    """Whether nothing waits to be flushed."""
    state = await engine.tiers(ROOT)
    return state.flush is not None and state.flush.entries == 0


async def waiting(engine: Engine) -> int:
    """Entries of the flush queue; ``engine.tiers`` would wait for the warm tier too."""
    return (await engine._tiering._tiered.backlog()).entries  # type: ignore[union-attr]


async def is_hot(engine: Engine, session: str) -> bool:
    return await engine._journal.hot.head(session) is not None


async def rest(engine: Engine, session: str) -> None:
    """Let a session rest without a step of its own, as the sweeper does."""
    assert await engine._tiering.rest(session)
    assert not await is_hot(engine, session)
