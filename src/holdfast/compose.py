"""The composition root: the only file that turns settings into adapters, kinds and sinks."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

from holdfast.embedders import load_embedder
from holdfast.engine.clock import SteadyClock, SystemChance
from holdfast.engine.engine import Engine, Policy
from holdfast.engine.sealing import KeyRing
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.kinds import KINDS, kinds, load_kind
from holdfast.model.access import SYSTEM, Principal
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.cold import ColdStore
from holdfast.ports.hot import HotStore
from holdfast.ports.keys import KeySource
from holdfast.ports.observer import Observer, Observers
from holdfast.ports.sink import Sink
from holdfast.ports.warm import Query, WarmStore
from holdfast.settings import Settings
from holdfast.sinks import open_sink
from holdfast.stores import adapter


@contextlib.asynccontextmanager
async def open_engine(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    chance: Chance | None = None,
    sweeping: bool = False,
    wrap: Callable[[HotStore], HotStore] = lambda store: store,
    wrap_sink: Callable[[Sink], Sink] = lambda sink: sink,
    observer: Observer | None = None,
) -> AsyncIterator[Engine]:
    """Open the engine that settings describe, and close it on leaving.

    Args:
        settings: those of the environment by default.
        clock, chance: time and randomness; the store's clock and the system's source by default.
        sweeping: sweep in the background for as long as the engine is open.
        wrap, wrap_sink: put something around the hot store or the sinks, such as faults.
        observer: told of what happens, for logs and metrics.
    Raises:
        ConfigurationError: the settings cannot be; nothing was opened.
        StoreUnavailableError, StoreFullError, TamperedError: a store does not open.
    """
    settings = settings or Settings.load()
    chance = chance or SystemChance()
    async with contextlib.AsyncExitStack() as opened:
        source = _keys(settings, chance)
        hot, warm = await _stores(settings, opened)
        ring = KeyRing(source or await _first_keys(settings, chance, warm), chance)
        cold: ColdStore = adapter("cold", settings.cold_url).open(settings.cold_url)
        opened.push_async_callback(cold.close)
        hot = wrap(hot)
        if observer is not None:
            observer = Observers(observer)  # what it raises goes no further
            hot, warm = timed(hot, HotStore, "hot", observer), timed(warm, WarmStore, "warm", observer)
            cold = timed(cold, ColdStore, "cold", observer)
        sinks = Sinks(settings, wrap_sink)
        opened.push_async_callback(sinks.close)
        engine = Engine(
            hot=hot,
            warm=warm,
            cold=cold,
            ring=ring,
            kinds=kinds(),
            sinks=sinks,
            clock=clock or await SteadyClock.on(hot),
            chance=chance,
            policy=Policy(
                limits=settings.limits,
                retention=settings.retention,
                grace=settings.grace,
                lock=settings.lock,
                lease=settings.lease,
                token=settings.auth.lifetime + 2 * settings.auth.leeway,
            ),
            observer=observer,
        )
        opened.push_async_callback(engine.close)
        if sweeping:
            sweeper = asyncio.create_task(_sweep(engine, settings.sweep, observer), name="holdfast-sweeper")
            opened.push_async_callback(_stop, sweeper)
        yield engine


class Sinks:
    """The sinks of the settings by kind, each opened when it is first asked for."""

    def __init__(self, settings: Settings, wrap: Callable[[Sink], Sink]) -> None:
        self._settings, self._wrap = settings, wrap
        self._opened: dict[str, Sink] = {}

    def __call__(self, kind: str) -> Sink:
        name = load_kind(kind).sink
        if name not in self._opened:
            urls = self._settings.sink_urls
            if name not in urls:
                raise ConfigurationError(f"{kind} publishes to the sink {name!r}, which the settings do not have.")
            embedder = load_embedder(self._settings.embedder)
            self._opened[name] = self._wrap(open_sink(urls[name], embedder=embedder))
        return self._opened[name]

    async def close(self) -> None:
        for sink in self._opened.values():
            await sink.close()


def _keys(settings: Settings, chance: Chance) -> KeySource | None:
    """Where the keys are, None for a key file that is not there."""
    if settings.keys is not None:
        from holdfast.stores.keys.environment import KeyEnvironment

        return KeyEnvironment(settings.keys)
    from holdfast.stores.keys.file import KeyFile

    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"The home {settings.home} cannot be used: {error.strerror}.") from None
    return KeyFile.open(settings.key_path, chance) if settings.key_path.exists() else None


async def _first_keys(settings: Settings, chance: Chance, warm: WarmStore) -> KeySource:
    """A key file for a home that has none: made on first use, and never where sessions are sealed under a lost one."""
    from holdfast.stores.keys.file import KeyFile

    # In this order: another process that is opening the same new home makes its key before its first session.
    if await warm.find(Query(), after=None, limit=1) and not settings.key_path.exists():
        raise ConfigurationError(
            f"There is no key file {settings.key_path}, and the home holds sessions sealed under its keys:"
            " put it back. A new one would open none of them."
        )
    return KeyFile.open(settings.key_path, chance)


async def _stores(settings: Settings, opened: contextlib.AsyncExitStack) -> tuple[HotStore, WarmStore]:
    """The hot and the warm store; where both are one SQLite file they share its connection and its log."""
    hot_url, warm_url = settings.hot_url, settings.warm_url
    hot_class, warm_class = adapter("hot", hot_url), adapter("warm", warm_url)
    if hot_url.startswith("sqlite://"):
        if hot_url != warm_url:
            raise ConfigurationError(
                "A SQLite file serves as hot and warm tier at once: set hot and warm to the same URL,"
                " or hot to a redis:// one."
            )
        from holdfast.drivers.sqlite import SqliteFile
        from holdfast.stores.sqlite_rows import SCHEMA

        file = SqliteFile.open(_path(hot_url), schema=SCHEMA, name="embedded")
        opened.push_async_callback(file.close)
        return hot_class(file), warm_class(file)
    # The warm one first, so that it outlives the hot one: what is flushed on the way out goes there.
    warm: WarmStore = await _opened(warm_class, warm_url)
    opened.push_async_callback(warm.close)
    hot: HotStore = await _opened(hot_class, hot_url)
    opened.push_async_callback(hot.close)
    return hot, warm


async def _opened(store: Any, url: str) -> Any:
    """A store of a URL: one in a file is opened by its path, and needs nobody's answer."""
    return store.open(_path(url)) if url.startswith("sqlite://") else await store.open(url)


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


class _Timed:
    """A store whose verbs are timed; whatever else is asked of it goes to the store."""

    def __init__(self, store: object, port: type, tier: str, observer: Observer) -> None:
        self._store = store
        for verb, declared in vars(port).items():
            if inspect.iscoroutinefunction(declared) and verb != "close":
                setattr(self, verb, _timing(getattr(store, verb), tier, verb, observer.stored))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


Store = TypeVar("Store", HotStore, WarmStore, ColdStore)


def timed(store: Store, port: type, tier: str, observer: Observer) -> Store:
    """A store that tells an observer how long each of its verbs has taken, whatever came of it."""
    return cast(Store, _Timed(store, port, tier, observer))


def _timing(
    verb: Callable[..., Awaitable[Any]], tier: str, name: str, tell: Callable[[str, str, float], None]
) -> Callable[..., Awaitable[Any]]:
    clock = time.perf_counter

    async def ask(*given: Any, **named: Any) -> Any:
        start = clock()
        try:
            return await verb(*given, **named)
        finally:
            tell(tier, name, clock() - start)

    return ask


async def _sweep(engine: Engine, seconds: float, observer: Observer | None) -> None:
    """Sweep for ever, for every tenant; a store that does not answer is tried again the next time."""
    who = Principal(SYSTEM, roles=frozenset({"operator"}))
    failed: Mapping[str, str]
    while True:
        try:
            failed = (await engine.sweep(who)).failed
        except Exception as error:  # the next round comes whatever this one met
            failed = {"": error.code if isinstance(error, HoldfastError) else type(error).__name__}
        if observer is not None:
            for session, code in failed.items():
                observer.failed("sweep", code, session)
        await asyncio.sleep(seconds)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


__all__ = ["KINDS", "Sinks", "kinds", "open_engine"]
