"""The composition root: the only file that turns settings into adapters, kinds and sinks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

from holdfast.embedders import load_embedder
from holdfast.engine.breaker import Breaker, guarded
from holdfast.engine.clock import SteadyClock, SystemChance
from holdfast.engine.engine import Engine, Policy
from holdfast.engine.sealing import KeyRing
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.kinds import KINDS, kinds, load_kind
from holdfast.model.access import SYSTEM, Principal
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.cold import ColdStore
from holdfast.ports.hot import HotStore, TieredHotStore
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
    wrap_warm: Callable[[WarmStore], WarmStore] = lambda store: store,
    wrap_sink: Callable[[Sink], Sink] = lambda sink: sink,
    observer: Observer | None = None,
) -> AsyncIterator[Engine]:
    """Open the engine that settings describe, and close it on leaving.

    Args:
        settings: those of the environment by default.
        clock, chance: time and randomness; the store's clock and the system's source by default.
        sweeping: sweep in the background for as long as the engine is open.
        wrap, wrap_warm, wrap_sink: put something around the hot store, the warm one or the sinks, such as faults.
        observer: told of what happens, for logs and metrics.
    Raises:
        ConfigurationError: the settings cannot be; nothing was opened.
        StoreUnavailableError, StoreFullError, TamperedError: a store does not open.
    """
    settings = settings or Settings.load()
    chance = chance or SystemChance()
    async with contextlib.AsyncExitStack() as opened:
        source = _keys(settings, chance)
        hot, warm, tiered = await _stores(settings, opened)
        ring = KeyRing(source or await _first_keys(settings, chance, warm), chance)
        if tiered:
            await _check_keys(settings, ring, warm)
            await _bind(cast(TieredHotStore, hot), warm)
        cold: ColdStore = adapter("cold", settings.cold_url).open(settings.cold_url)
        opened.push_async_callback(cold.close)
        hot, warm = wrap(hot), wrap_warm(warm)
        if observer is not None:
            observer = Observers(observer)  # what it raises goes no further
        hot = _guarded(hot, TieredHotStore, "hot", settings.hot_url, observer)
        warm = _guarded(warm, WarmStore, "warm", settings.warm_url, observer)
        cold = _guarded(cold, ColdStore, "cold", settings.cold_url, observer)
        durability = "disk" if not tiered else cast(TieredHotStore, hot).durability
        if tiered and settings.acknowledge == "warm":
            durability = "warm"
        sinks = Sinks(settings, wrap_sink)
        opened.push_async_callback(sinks.close)
        engine = Engine(
            hot=hot,
            tiered=cast(TieredHotStore, hot) if tiered else None,
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
                suspend_after=settings.suspend_after,
                archive_after=settings.archive_after,
                durability=durability,
            ),
            observer=observer,
        )
        opened.push_async_callback(engine.close)
        engine.start()
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


async def _check_keys(settings: Settings, ring: KeyRing, warm: WarmStore) -> None:
    """Refuse to work with keys of one's own on tiers that others share: neither could read what the other seals."""
    for head in await warm.find(Query(), after=None, limit=1):
        if head.key is not None and (key := ring.wraps(head.key)) not in ring.ids:
            where = "in HOLDFAST_KEYS" if settings.keys is not None else f"in {settings.key_path}"
            raise ConfigurationError(
                f"The newest session of the warm tier is sealed under the key {key}, which is not {where}: all who"
                " share the tiers must share the keys, by key_file or HOLDFAST_KEYS."
            )


async def _bind(hot: TieredHotStore, warm: WarmStore) -> None:
    """Refuse to flush a hot tier to another warm tier than all the others do who share it."""
    identity = await warm.identity()
    if await hot.bind(identity) != identity:
        raise ConfigurationError(
            "The hot tier is flushed to another warm tier than this one: is HOLDFAST_WARM set, and right? To start over"
            " on this warm tier, name another prefix in the URL of the hot one."
        )


async def _stores(settings: Settings, opened: contextlib.AsyncExitStack) -> tuple[HotStore, WarmStore, bool]:
    """The hot and the warm store, and whether they are two.

    Where both are one SQLite file they share its connection and its log.
    """
    hot_url, warm_url = settings.hot_url, settings.warm_url
    hot_class, warm_class = adapter("hot", hot_url), adapter("warm", warm_url)
    if hot_url.startswith("sqlite://"):
        if hot_url != warm_url:
            raise ConfigurationError(
                "A SQLite file serves as hot and warm tier at once: set hot and warm to the same URL,"
                " or hot to a redis:// one."
            )
        from holdfast.stores.sqlite_rows import open_tables

        file = open_tables(_path(hot_url), name="embedded")
        opened.push_async_callback(file.close)
        return hot_class(file), warm_class(file), False
    # The warm one first, so that it outlives the hot one: what is flushed on the way out goes there.
    warm: WarmStore = await _opened(warm_class, warm_url)
    opened.push_async_callback(warm.close)
    hot: TieredHotStore = await _opened(hot_class, hot_url, bound=settings.flush_queue)
    opened.push_async_callback(hot.close)
    return hot, warm, True


async def _opened(store: Any, url: str, **given: Any) -> Any:
    """A store of a URL: one in a file is opened by its path, and needs nobody's answer."""
    return store.open(_path(url)) if url.startswith("sqlite://") else await store.open(url, **given)


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


_HERE = frozenset({"sqlite", "file", "memory"})
"""Schemes of stores that are no server: what they cannot do now no rest will mend."""

Store = TypeVar("Store", HotStore, WarmStore, ColdStore)


def is_remote(url: str) -> bool:
    """Whether the store of a URL is reached over a network."""
    return url.partition("://")[0] not in _HERE


def _guarded(store: Store, port: type, tier: str, url: str, observer: Observer | None) -> Store:
    """A store that is timed for an observer, and that has a breaker if it is reached over a network."""
    if not is_remote(url):
        return guarded(store, port, tier, observer=observer)
    breaker = Breaker(tier) if observer is None else Breaker(tier, tell=observer.broke)
    return guarded(store, port, tier, breaker=breaker, observer=observer)


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


__all__ = ["KINDS", "Sinks", "is_remote", "kinds", "open_engine"]
