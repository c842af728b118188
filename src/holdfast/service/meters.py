"""The figures of one process, for Prometheus.

What is counted on every request is counted in plain numbers, and becomes families of samples only when it is asked
for: a histogram of the client library costs 1.4 µs to observe, for it takes a lock, and one of these 0.2. The labels
are bounded: routes are templates and never paths, operations are those that are declared.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.engine.engine import Engine
from holdfast.engine.tiering import Tiers
from holdfast.errors import HoldfastError
from holdfast.model.lease import Lease
from holdfast.model.session import LIFECYCLE, Header
from holdfast.ports.observer import CLOSED, OPENED, PROBING, Observer

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0)
STORE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.2, 0.5, 2.0)
SESSION_SECONDS = (60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)
PATIENCE = 3.0
"""Seconds that a scrape waits for stores; those of Prometheus give up after 10."""
OTHER, NONE = "other", "none"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LEASES = {"taken": "lease", "renewed": "renew", "released": "release"}
_OPERATIONS = LIFECYCLE.keys() | {"create", "undo", "redo", "restore"} | set(_LEASES.values())
_OUTCOMES = {"publish": "published", "discard": "discarded", "expire": "expired"}
_UNDER_WAY = ("draft", "locked")
_MOST_LABELS = 2_000
_BREAKER = {CLOSED: 0, PROBING: 1, OPENED: 2}

Found = TypeVar("Found")


class Meters(Observer):
    """Counts what happens, and renders it. It belongs to one event loop."""

    def __init__(self) -> None:
        self.streams = 0
        self._engine: Engine | None = None
        self._active: Mapping[tuple[str, str], int] | None = None
        self._tiers: Tiers | None = None
        self._asking: dict[str, asyncio.Task[Any]] = {}
        self._breakers: dict[str, str] = {}
        self._opened: dict[str, int] = {}
        self._limited = self._unknown = 0
        self._operations = dict.fromkeys(sorted(_OPERATIONS | {OTHER}), 0)
        self._durations = {outcome: Spread(SESSION_SECONDS) for outcome in _OUTCOMES.values()}
        self._requests: dict[tuple[str, str, int], Spread] = {}
        self._stores: dict[tuple[str, str], Spread] = {}
        self._failures = {"sweep": 0}
        self._registry = CollectorRegistry()
        self._registry.register(_Families(self))
        ProcessCollector(registry=self._registry)

    def attach(self, engine: Engine) -> None:
        """Ask this engine for its figures from now on, and know the operations its kinds declare."""
        self._engine = engine
        for kind in engine.kinds.values():
            for operation in kind.operations:
                self._operations.setdefault(operation.name, 0)

    # -- what the engine tells -----------------------------------------------------------------------------------------

    def appended(self, header: Header, operation: str, actor: str, at: datetime) -> None:
        self._operations[operation if operation in self._operations else OTHER] += 1
        outcome = _OUTCOMES.get(operation)
        if outcome is not None:
            self._durations[outcome].add((at - header.created).total_seconds())

    def leased(self, step: str, header: Header, actor: str, lease: Lease) -> None:
        self._operations[_LEASES[step]] += 1

    def stored(self, tier: str, what: str, seconds: float) -> None:
        spread = self._stores.get((tier, what))
        if spread is None:
            spread = self._stores[(tier, what)] = Spread(STORE_SECONDS)
        spread.add(seconds)

    def failed(self, what: str, code: str, session: str = "") -> None:
        self._failures[what] = self._failures.get(what, 0) + 1

    def broke(self, tier: str, state: str) -> None:
        before = self._breakers.get(tier, CLOSED)
        self._breakers[tier] = state
        # After a probe that failed it is still the same outage.
        self._opened[tier] = self._opened.get(tier, 0) + (state == OPENED and before == CLOSED)

    # -- what the service tells ----------------------------------------------------------------------------------------

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; 0 is the status of one whose peer went away first.

        Args:
            route: the template of its path, such as ``/v1/sessions/{session}``.
        """
        if status == 429:
            self._limited += 1
        elif status == 401:
            self._unknown += 1
        key = (route, method, status // 100)
        spread = self._requests.get(key)
        if spread is None:
            spread = self._first(route, method, status)
        spread.add(seconds)

    def _first(self, route: str, method: str, status: int) -> Spread:
        method = method if method in _METHODS else OTHER
        if len(self._requests) >= _MOST_LABELS:  # no service has as many routes: somebody makes them up
            route, method = OTHER, OTHER
        return self._requests.setdefault((route, method, status // 100), Spread(REQUEST_SECONDS))

    # -- rendering -----------------------------------------------------------------------------------------------------

    async def render(self) -> bytes:
        """Every figure in the text format of Prometheus. Those that a store would have to give are left out if it does
        not answer soon.
        """
        counted, tiers = await asyncio.gather(self._soon("counts", self._count), self._soon("tiers", self._look))
        self._active, self._tiers = counted, tiers
        return generate_latest(self._registry) + "".join(self._histograms()).encode()

    async def _soon(self, what: str, ask: Callable[[], Awaitable[Found | None]]) -> Found | None:
        """What stores answer, None if they do not answer soon. While one is being waited for it is not asked again."""

        async def asked() -> Found | None:
            with contextlib.suppress(HoldfastError):
                return await ask()
            return None

        task: asyncio.Task[Found | None] | None = self._asking.get(what)
        if task is None:
            task = self._asking[what] = asyncio.create_task(asked(), name=f"holdfast-metrics-{what}")
            task.add_done_callback(lambda _: self._asking.pop(what))
        done, _ = await asyncio.wait((task,), timeout=PATIENCE)
        return task.result() if done else None

    async def _count(self) -> Mapping[tuple[str, str], int] | None:
        if self._engine is None:
            return None
        counted = await self._engine.counts()
        kinds = {kind for _, kind in counted} | self._engine.kinds.keys()
        return {(status, kind): counted.get((status, kind), 0) for status in _UNDER_WAY for kind in sorted(kinds)}

    async def _look(self) -> Tiers | None:
        return None if self._engine is None else await self._engine.tier_state()

    def _histograms(self) -> Iterator[str]:
        """The histograms as text. There are thousands of samples in them, which the library would take 50 ms to write,
        and everybody would wait.
        """
        name = "session_duration_seconds"
        yield _head(name, "From the creation of a session to its end.")
        for outcome, spread in self._durations.items():
            yield from spread.lines(name, {"outcome": outcome})
        name = "holdfast_http_request_duration_seconds"
        yield _head(name, "From the head of a request to the end of its answer; of a feed, to its beginning.")
        for (route, method, status), spread in self._requests.items():
            labels = {"route": route, "method": method, "status": f"{status}xx" if status else NONE}
            yield from spread.lines(name, labels)
        name = "holdfast_store_duration_seconds"
        yield _head(name, "How long a store took to answer.")
        for (tier, what), spread in self._stores.items():
            yield from spread.lines(name, {"tier": tier, "operation": what})

    def families(self) -> Iterator[Metric]:
        """All other figures as they stand."""
        if self._active is not None:
            active = GaugeMetricFamily(
                "sessions_active", "Sessions that are draft or locked.", labels=("status", "kind")
            )
            for labels, count in self._active.items():
                active.add_metric(labels, count)
            yield active
        operations = CounterMetricFamily("session_operations", "Operations that landed.", labels=("operation",))
        for operation, count in self._operations.items():
            operations.add_metric((operation,), count)
        yield operations
        yield CounterMetricFamily("holdfast_rate_limited", "Requests refused as too many.", self._limited)
        yield CounterMetricFamily("holdfast_unauthenticated", "Requests refused for want of a token.", self._unknown)
        yield GaugeMetricFamily("holdfast_streams_open", "Feeds that are being followed.", self.streams)
        failures = CounterMetricFamily(
            "holdfast_failures", "What the engine does by itself and could not.", labels=("what",)
        )
        for what, count in self._failures.items():
            failures.add_metric((what,), count)
        yield failures
        yield from self._tiered()
        if self._engine is not None:
            lags = self._engine.lags()
            yield GaugeMetricFamily("holdfast_audit_pending", "Audit lines that are not written yet.", lags.audit)
            yield GaugeMetricFamily("holdfast_audit_age_seconds", "Age of the oldest of them.", lags.audit_seconds)
            yield CounterMetricFamily("holdfast_audit_lost", "Audit lines given up.", lags.lost)
            yield GaugeMetricFamily(
                "holdfast_sweep_age_seconds", "Since the sweeper's last whole round.", lags.sweep_seconds
            )

    def _tiered(self) -> Iterator[Metric]:
        """The breakers, and how the tiers stand: what of them has answered."""
        if self._breakers:
            states = GaugeMetricFamily(
                "holdfast_breaker_state",
                "The breaker of a store: 0 closed, 1 half open, 2 open.",
                labels=("tier",),
            )
            opened = CounterMetricFamily(
                "holdfast_breaker_opened", "Outages for which a breaker opened.", labels=("tier",)
            )
            for tier, state in self._breakers.items():
                states.add_metric((tier,), _BREAKER[state])
                opened.add_metric((tier,), self._opened[tier])
            yield states
            yield opened
        if self._tiers is None:
            return
        flush, hot, warm = self._tiers.flush, self._tiers.hot, self._tiers.warm
        if flush is not None:
            yield GaugeMetricFamily(
                "holdfast_flush_queue_entries", "Writes that the warm tier does not have yet.", flush.entries
            )
            yield GaugeMetricFamily("holdfast_flush_lag_seconds", "Age of the oldest of them.", flush.waited)
            yield GaugeMetricFamily(
                "holdfast_flush_dead_letters", "Writes that could not be flushed and wait for help.", flush.buried
            )
        sessions: dict[str, int] = {}
        sizes: dict[str, int] = {}
        if hot is not None:
            sessions["hot"], sizes["hot"] = hot.sessions, hot.bytes
        if warm is not None:
            sessions["warm"], sessions["cold"], sizes["warm"] = warm.sessions, warm.archived, warm.bytes
        for name, meaning, figures in (
            ("holdfast_tier_sessions", "Sessions that a tier holds; cold are those that are archived.", sessions),
            ("holdfast_tier_bytes", "Bytes that a tier holds, in memory or on disk.", sizes),
        ):
            if figures:
                family = GaugeMetricFamily(name, meaning, labels=("tier",))
                for tier, figure in figures.items():
                    family.add_metric((tier,), figure)
                yield family


class Spread:
    """A histogram: how many observations fell up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: Mapping[str, str]) -> Iterator[str]:
        """The samples in the text format; every bucket counts those before it too."""
        given, sum_ = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items()), 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            sum_ += count
            yield f'{name}_bucket{{{given},le="{bound}"}} {sum_}\n'
        yield f"{name}_count{{{given}}} {sum_}\n{name}_sum{{{given}}} {self.total!r}\n"


class _Families(Collector):
    """What the registry asks."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def collect(self) -> Iterable[Metric]:
        return self._meters.families()


def _head(name: str, meaning: str) -> str:
    return f"# HELP {name} {meaning}\n# TYPE {name} histogram\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
