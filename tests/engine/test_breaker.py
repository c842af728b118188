"""The breaker of a store: a rest after failures in a row, one probe at a time, and back by itself (F08, R11)."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from holdfast.compose import open_engine
from holdfast.engine.breaker import COOLDOWN, MOST, THRESHOLD, Breaker, guarded
from holdfast.errors import (
    HoldfastError,
    LeaseLostError,
    LimitExceededError,
    StoreDownError,
    StoreFullError,
    StoreUnavailableError,
    TamperedError,
)
from holdfast.model.lease import Lease
from holdfast.ports.cold import ColdStore
from holdfast.ports.hot import HotStore, TieredHotStore
from holdfast.ports.observer import CLOSED, OPENED, PROBING, Observer
from holdfast.settings import Settings
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.proxy import Proxy
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer

GONE = StoreUnavailableError("hot", "gone")


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watcher(Observer):
    """Keeps what it is told of stores."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self.calls: list[tuple[str, str]] = []

    def stored(self, tier: str, what: str, seconds: float) -> None:
        self.calls.append((tier, what))

    def broke(self, tier: str, state: str) -> None:
        self.states.append((tier, state))

    def appended(self, *about: Any) -> None: ...
    def leased(self, *about: Any) -> None: ...
    def failed(self, *about: Any) -> None: ...


class Store:
    """In the place of an adapter, where it is to fail in every way there is: raises ``error``, if there is one."""

    generation = 7

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.asked: list[str] = []
        self.waiting: asyncio.Event | None = None

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.waiting is not None:
            await self.waiting.wait()
        if self.error is not None:
            raise self.error

    async def head(self, session: str) -> str:
        await self._ask("head")
        return session

    async def claim(self, worker: str, *, limit: int, idle: float) -> list[str]:
        await self._ask("claim")
        return [worker]

    async def epoch(self, boot: str, offer: Any) -> None:
        await self._ask("epoch")

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        for number in range(3):
            await self._ask("keys")
            yield f"{prefix}{number}"

    async def close(self) -> None:
        await self._ask("close")


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def hot(store: Store, clock: Hand, watcher: Watcher) -> Any:
    breaker = Breaker("hot", clock=clock, tell=watcher.broke)
    return guarded(store, TieredHotStore, "hot", breaker=breaker, observer=watcher)


async def failing(hot: Any, store: Store, count: int = THRESHOLD) -> None:
    """So many calls that find nobody, each with an error of its own."""
    for _ in range(count):
        store.error = StoreUnavailableError("hot", "gone")
        with pytest.raises(StoreUnavailableError):
            await hot.head("s")


async def probing(hot: Any, store: Store, clock: Hand) -> tuple[asyncio.Task[Any], asyncio.Event]:
    """A probe under way, and what the store's answer to it waits for."""
    await failing(hot, store)
    store.error, store.waiting = None, asyncio.Event()
    clock.now += COOLDOWN
    probe = asyncio.create_task(hot.head("s"))
    await asyncio.sleep(0)
    return probe, store.waiting


async def refused(hot: Any) -> StoreDownError:
    """A call that is refused at once."""
    with pytest.raises(StoreDownError) as caught:
        await hot.head("s")
    return caught.value


def states(watcher: Watcher) -> list[str]:
    return [state for _, state in watcher.states]


# -- when it opens -----------------------------------------------------------------------------------------------------


async def test_failures_in_a_row_open_it_and_then_nothing_is_sent(hot: Any, store: Store, watcher: Watcher) -> None:
    await failing(hot, store)
    assert states(watcher) == [CLOSED, OPENED]
    asked = len(store.asked)
    for _ in range(10):
        error = await refused(hot)
        assert (error.store, error.code) == ("hot", "store-down")
        assert 0 < error.retry_after <= COOLDOWN
    assert len(store.asked) == asked
    assert len(watcher.calls) == asked  # and what was not asked took no time


async def test_failures_that_are_not_in_a_row_do_not_open_it(hot: Any, store: Store, watcher: Watcher) -> None:
    for _ in range(10):
        await failing(hot, store, THRESHOLD - 1)
        store.error = None
        assert await hot.head("s") == "s"
    assert states(watcher) == [CLOSED]


@pytest.mark.parametrize(
    "answer",
    [
        StoreFullError("hot"),
        TamperedError("a row"),
        LeaseLostError(1, 2),
        LimitExceededError("sessions of one owner", 2, 1),
    ],
    ids=lambda error: error.code,
)
async def test_a_refusal_is_an_answer(hot: Any, store: Store, watcher: Watcher, answer: HoldfastError) -> None:
    for _ in range(3):
        await failing(hot, store, THRESHOLD - 1)
        store.error = answer
        for _ in range(THRESHOLD):
            with pytest.raises(type(answer)):
                await hot.head("s")
    assert states(watcher) == [CLOSED]


async def test_one_error_that_many_callers_share_counts_once(hot: Any, store: Store, watcher: Watcher) -> None:
    """A connection that breaks takes all with it that was under way on it."""
    store.error = GONE
    for _ in range(32):
        with pytest.raises(StoreUnavailableError):
            await hot.head("s")
    assert states(watcher) == [CLOSED]
    await failing(hot, store, THRESHOLD - 1)
    assert states(watcher) == [CLOSED, OPENED]


def test_an_error_is_not_kept_alive_to_be_compared() -> None:
    breaker, error = Breaker("hot"), StoreUnavailableError("hot", "gone")
    alive = weakref.ref(error)
    breaker.failed(breaker.era, error)
    del error
    gc.collect()
    assert alive() is None


async def test_what_was_under_way_when_it_opened_does_not_lengthen_the_rest(clock: Hand, watcher: Watcher) -> None:
    breaker = Breaker("hot", clock=clock, tell=watcher.broke)
    calls = [breaker.era] * 100
    for era in calls:
        breaker.failed(era, StoreUnavailableError("hot", "gone"))
    assert states(watcher) == [CLOSED, OPENED]
    clock.now += COOLDOWN
    breaker.answered(breaker.probe())
    for era in calls:  # nor do the last of them open it again
        breaker.failed(era, StoreUnavailableError("hot", "gone"))
    assert states(watcher) == [CLOSED, OPENED, PROBING, CLOSED]


# -- how it closes -----------------------------------------------------------------------------------------------------


async def test_after_the_rest_one_call_is_let_through_and_closes_it(
    hot: Any, store: Store, clock: Hand, watcher: Watcher
) -> None:
    await failing(hot, store)
    store.error = None
    clock.now += COOLDOWN
    assert await hot.head("s") == "s"
    assert states(watcher) == [CLOSED, OPENED, PROBING, CLOSED]
    await failing(hot, store, THRESHOLD - 1)
    assert states(watcher)[-1] == CLOSED  # it counts anew


async def test_each_probe_that_fails_doubles_the_rest_up_to_a_bound(
    hot: Any, store: Store, clock: Hand, watcher: Watcher
) -> None:
    """R11: however long it was away, it is asked again soon enough to be back within 5 s."""
    await failing(hot, store)
    rests = []
    for _ in range(6):
        rest = (await refused(hot)).retry_after
        clock.now += rest - 0.001
        await refused(hot)
        clock.now += 0.002
        rests.append(rest)
        await failing(hot, store, 1)
    assert rests == [0.5, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert states(watcher) == [CLOSED, OPENED, *[PROBING, OPENED] * 6]


async def test_while_a_probe_is_under_way_the_others_are_refused(
    hot: Any, store: Store, clock: Hand, watcher: Watcher
) -> None:
    probe, waiting = await probing(hot, store, clock)
    asked = len(store.asked)
    for _ in range(10):
        assert 0 < (await refused(hot)).retry_after <= COOLDOWN
    assert len(store.asked) == asked
    waiting.set()
    assert await probe == "s"
    assert await hot.head("s") == "s"


@pytest.mark.parametrize("answer", [StoreFullError("hot"), LeaseLostError(1, 2)], ids=lambda error: error.code)
async def test_a_probe_that_is_refused_closes_it_too(
    hot: Any, store: Store, clock: Hand, watcher: Watcher, answer: HoldfastError
) -> None:
    await failing(hot, store)
    clock.now += COOLDOWN
    store.error = answer
    with pytest.raises(type(answer)):
        await hot.head("s")
    assert states(watcher)[-1] == CLOSED


async def test_a_probe_whose_caller_is_cancelled_leaves_its_place_to_the_next(
    hot: Any, store: Store, clock: Hand, watcher: Watcher
) -> None:
    probe, _ = await probing(hot, store, clock)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert states(watcher)[-1] == PROBING  # it is neither an answer nor a failure
    store.waiting = None
    assert await hot.head("s") == "s"
    assert states(watcher)[-1] == CLOSED


async def test_calls_that_are_cancelled_are_neither_failures_nor_answers(
    hot: Any, store: Store, watcher: Watcher
) -> None:
    for error in (asyncio.CancelledError(), ZeroDivisionError()):
        for _ in range(2 * THRESHOLD):
            store.error = error
            with pytest.raises(type(error)):
                await hot.head("s")
    assert states(watcher) == [CLOSED]
    await failing(hot, store, 1)
    store.error = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await hot.head("s")
    await failing(hot, store, THRESHOLD - 1)
    assert states(watcher) == [CLOSED, OPENED]


async def test_a_probe_that_takes_long_does_not_keep_everybody_out(clock: Hand, watcher: Watcher) -> None:
    """A statement that may take a minute, sent into a hole: there is another probe meanwhile."""
    breaker = Breaker("warm", clock=clock, tell=watcher.broke)
    for _ in range(THRESHOLD):
        breaker.failed(breaker.era, StoreUnavailableError("warm", "gone"))
    clock.now += COOLDOWN
    first = breaker.probe()
    clock.now += MOST
    second = breaker.probe()
    breaker.failed(first, StoreUnavailableError("warm", "gone"))
    assert not breaker.closed
    breaker.released(first)
    with pytest.raises(StoreDownError):
        breaker.probe()
    breaker.answered(second)
    assert breaker.closed


async def test_a_probe_that_takes_long_and_is_answered_closes_it(clock: Hand) -> None:
    """Large objects, each of which takes longer to keep than the longest rest: one that is kept is an answer."""
    breaker = Breaker("cold", clock=clock)
    for _ in range(THRESHOLD):
        breaker.failed(breaker.era, StoreUnavailableError("cold", "gone"))
    clock.now += COOLDOWN
    first = breaker.probe()
    clock.now += MOST
    breaker.probe()
    breaker.answered(first)
    assert breaker.closed


class Played(RuleBasedStateMachine):
    """Calls, outcomes and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Hand()
        self.told: list[str] = []
        self.breaker = Breaker("hot", clock=self.clock, tell=lambda tier, state: self.told.append(state))
        self.under_way: list[int] = []
        self.outcomes: list[str] = []  # since it was last closed, of calls that were let through since
        self.since = 0
        self.probed: float | None = None
        self.last = 0.0  # when a call was last let through while it was not closed, or found nobody

    @rule()
    def call(self) -> None:
        if self.breaker.closed:
            self.under_way.append(self.breaker.era)
            return
        try:
            era = self.breaker.probe()
        except StoreDownError as error:
            self.refused(error.retry_after)
            return
        assert self.probed is None or self.clock.now >= self.probed + COOLDOWN
        self.probed = self.last = self.clock.now
        self.under_way.append(era)

    def refused(self, wait: float) -> None:
        assert 0 < wait <= MOST
        assert self.clock.now < self.last + MOST

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0), outcome=st.sampled_from(["failed", "answered", "released"]))
    def end(self, which: int, outcome: str) -> None:
        era = self.under_way.pop(which % len(self.under_way))
        was_closed, counts = self.breaker.closed, era >= self.since
        if outcome == "failed":
            self.breaker.failed(era, StoreUnavailableError("hot", "gone"))
            self.last = self.clock.now
        elif outcome == "answered":
            self.breaker.answered(era)
        else:
            self.breaker.released(era)
            self.probed = None
        if was_closed and counts and outcome != "released":
            self.outcomes.append(outcome)
            assert self.breaker.closed == (self.outcomes[-THRESHOLD:] != ["failed"] * THRESHOLD)
        elif was_closed:
            assert self.breaker.closed
        if self.breaker.closed != was_closed:
            self.outcomes, self.probed, self.since = [], None, self.breaker.era
            assert outcome == ("answered" if self.breaker.closed else "failed")

    @rule(seconds=st.sampled_from([0.01, 0.2, 0.5, 1.0, 2.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def is_told(self) -> None:
        assert (self.told[-1] == CLOSED) == self.breaker.closed


TestPlayed = Played.TestCase
TestPlayed.settings = example_settings(max_examples=100, stateful_step_count=50, deadline=None)


# -- what is guarded ---------------------------------------------------------------------------------------------------


async def test_the_verbs_of_a_port_and_of_its_parents_are_guarded_and_timed(
    hot: Any, store: Store, watcher: Watcher
) -> None:
    assert await hot.claim("w", limit=1, idle=1.0) == ["w"]
    assert watcher.calls == [("hot", "claim")]
    await failing(hot, store)
    asked = len(store.asked)
    with pytest.raises(StoreDownError):
        await hot.claim("w", limit=1, idle=1.0)
    assert len(store.asked) == asked
    assert hot.generation == 7


async def test_closing_and_starting_up_always_reach_the_store(hot: Any, store: Store) -> None:
    await failing(hot, store)
    store.error = None
    await hot.epoch("b", NOW)
    await hot.close()
    assert store.asked[-2:] == ["epoch", "close"]


async def test_walking_through_keys_is_guarded_step_by_step(store: Store, clock: Hand, watcher: Watcher) -> None:
    breaker = Breaker("cold", clock=clock, tell=watcher.broke)
    cold: Any = guarded(store, ColdStore, "cold", breaker=breaker)
    assert [key async for key in cold.keys("a/")] == ["a/0", "a/1", "a/2"]
    for _ in range(THRESHOLD):
        store.error = StoreUnavailableError("cold", "gone")
        with pytest.raises(StoreUnavailableError):
            [key async for key in cold.keys("a/")]
    asked = len(store.asked)
    with pytest.raises(StoreDownError):
        [key async for key in cold.keys("a/")]
    assert len(store.asked) == asked
    store.error = None
    clock.now += COOLDOWN
    walk = cold.keys("a/")
    assert await anext(walk) == "a/0"
    assert states(watcher)[-1] == CLOSED  # with the first key, however long the walk
    await walk.aclose()
    assert [key async for key in cold.keys("a/")] == ["a/0", "a/1", "a/2"]


def test_without_a_breaker_and_an_observer_a_store_is_itself(store: Store) -> None:
    assert guarded(store, HotStore, "hot") is store


async def test_a_guarded_call_costs_about_a_microsecond(watcher: Watcher) -> None:
    class Quick:
        async def head(self, session: str) -> None: ...

    async def cost(store: Any) -> float:
        best = 1.0
        for _ in range(20):
            begun = time.perf_counter()
            for _ in range(1_000):
                await store.head("s")
            best = min(best, (time.perf_counter() - begun) / 1_000)
        return best

    bare = Quick()
    more = await cost(guarded(bare, HotStore, "hot", breaker=Breaker("hot"), observer=watcher)) - await cost(bare)
    print(f"a breaker and a clock: {more * 1e6:.2f} µs a call")  # 0.55 on one machine, 0.05 of it the breaker's
    assert more < 10e-6


async def test_stores_in_files_have_no_breaker(settings: Settings, watcher: Watcher) -> None:
    async with open_engine(settings, observer=watcher) as engine:
        assert set((await engine.health()).values()) == {"ok"}
    assert watcher.states == []
    assert ("hot", "head") in watcher.calls


# -- F08: a real server behind a proxy ---------------------------------------------------------------------------------

FIRST, LONGEST, REPLY = 0.1, 0.4, 0.2


class Counting(Proxy):
    """Counts what reaches it."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.dials = self.commands = 0

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dials += 1
        await super()._taken(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        counted = reader if replies else cast(asyncio.StreamReader, Counted(reader, self))
        await super()._carry(counted, writer, replies=replies)


class Counted:
    def __init__(self, reader: asyncio.StreamReader, proxy: Counting) -> None:
        self._reader, self._proxy = reader, proxy

    async def read(self, most: int) -> bytes:
        piece = await self._reader.read(most)
        self._proxy.commands += piece.count(b"HMGET")
        return piece


@dataclass
class Seen:
    """What an outage looked like. Times in seconds."""

    before: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    lasted: float = 0.0
    let_through: int = 0  # calls, once it had opened
    reached: int = 0  # dials and commands, each call being one of either
    refused: list[float] = field(default_factory=list)
    back: float = 0.0
    served: int = 0


@pytest.fixture
async def proxy(redis: RedisServer) -> AsyncIterator[Counting]:
    async with Counting(*redis.address).listening() as proxy:
        yield proxy


async def outage(proxy: Counting, fault: str, make: type[Breaker], lasts: float = 1.2) -> Seen:
    """Twenty callers that never stop asking while the server cannot be reached, and a while longer."""
    seen = Seen()
    told = seen.before
    breaker = make("hot", cooldown=FIRST, most=LONGEST, tell=lambda tier, state: told.append(state))
    real = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?timeout={REPLY}&connect={REPLY}&lanes=1")
    store = guarded(real, HotStore, "hot", breaker=breaker)
    try:
        await store.write(write_at("s", 1), now=NOW)
        for _ in range(2 * THRESHOLD):
            with pytest.raises(LeaseLostError):
                await store.renew(Lease("s", "ana", 99, NOW), seconds=30, now=NOW)
        told = seen.states
        if fault == "black hole":
            proxy.hole = True
        else:
            proxy.refuse = True
            proxy.cut()
        for _ in range(THRESHOLD):
            with pytest.raises(StoreUnavailableError):
                await store.head("s")
        proxy.dials = proxy.commands = 0
        begun = time.monotonic()

        async def asking() -> None:
            while time.monotonic() - begun < lasts:
                called = time.monotonic()
                try:
                    await store.head("s")
                except StoreDownError:
                    seen.refused.append(time.monotonic() - called)
                    await asyncio.sleep(0.005)
                except StoreUnavailableError:
                    seen.let_through += 1

        await asyncio.gather(*(asking() for _ in range(20)))
        seen.lasted = time.monotonic() - begun
        seen.reached = max(proxy.dials, proxy.commands)
        proxy.heal()
        begun = time.monotonic()
        while seen.back < 5:
            seen.back = time.monotonic() - begun
            try:
                await store.head("s")
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.005)
        for answer in await asyncio.gather(*(store.head("s") for _ in range(50)), return_exceptions=True):
            seen.served += not isinstance(answer, BaseException)
    finally:
        proxy.heal()
        await real.close()
    return seen


def hold(seen: Seen) -> None:
    """What F08 asks for: it opens once, one probe at a time reaches the server, and it is back by itself."""
    assert seen.before == [CLOSED], "an answer was taken for a failure"
    probes = seen.states.count(PROBING)
    assert seen.states == [OPENED, *[PROBING, OPENED] * (probes - 1), PROBING, CLOSED]
    most = 2 + (seen.lasted - 3 * FIRST) / LONGEST
    assert 1 <= seen.let_through <= most
    assert seen.let_through == seen.reached
    assert len(seen.refused) > 100
    assert sorted(seen.refused)[len(seen.refused) // 2] < 0.005
    assert seen.back < LONGEST + REPLY + 1
    assert seen.served == 50


@pytest.mark.parametrize("fault", ["cut", "black hole"])
async def test_f08_it_opens_once_and_one_probe_at_a_time_reaches_the_server(proxy: Counting, fault: str) -> None:
    """F08, R11."""
    seen = await outage(proxy, fault, Breaker)
    print(
        f"F08 {fault}: {seen.lasted:.1f} s, {len(seen.refused)} refused, {seen.let_through} let through,"
        f" {seen.reached} reached the server, back after {seen.back:.3f} s"
    )
    hold(seen)


class AdmitsAll(Breaker):
    """Lets everybody through when it is half open."""

    def probe(self) -> int:
        era = super().probe()
        self._until = self._clock()
        return era


class TakesAnswersForFailures(Breaker):
    def answered(self, era: int) -> None:
        if self.closed:
            self.failed(era, StoreUnavailableError(self.tier, "it said no"))
        else:
            super().answered(era)


class NeverCloses(Breaker):
    def answered(self, era: int) -> None:
        if self.closed:
            super().answered(era)
        else:
            self.released(era)


class NeverOpens(Breaker):
    def failed(self, era: int, error: BaseException) -> None: ...


class NeverRests(Breaker):
    """Probes again at once."""

    def failed(self, era: int, error: BaseException) -> None:
        super().failed(era, error)
        self._until = self._clock()


@pytest.mark.parametrize("broken", [AdmitsAll, TakesAnswersForFailures, NeverCloses, NeverOpens, NeverRests])
async def test_teeth_f08_a_broken_breaker_is_caught(proxy: Counting, broken: type[Breaker]) -> None:
    try:
        seen = await outage(proxy, "black hole", broken, lasts=0.8)
    except StoreDownError:  # it had opened before there was a fault
        assert broken is TakesAnswersForFailures
        return
    with pytest.raises(AssertionError):
        hold(seen)


async def test_a_connection_that_breaks_under_many_callers_is_one_failure(proxy: Counting, watcher: Watcher) -> None:
    """F06: a lost reply takes a whole pipeline with it, and the server is well."""
    real = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?lanes=1")
    store = guarded(real, HotStore, "hot", breaker=Breaker("hot", tell=watcher.broke))
    await store.head("s")
    losing = True

    def drop(piece: bytes) -> bool:
        nonlocal losing
        losing, now = False, losing
        return now

    proxy.drop = drop
    outcomes = await asyncio.gather(*(store.head("s") for _ in range(32)), return_exceptions=True)
    assert [type(one) for one in outcomes] == [StoreUnavailableError] * 32
    await store.head("s")
    assert states(watcher) == [CLOSED]
    await real.close()


async def test_a_tier_on_a_server_has_a_breaker_and_its_health_says_so(
    redis: RedisServer, settings: Settings, watcher: Watcher, proxy: Counting
) -> None:
    """F08: through the whole engine; it is back with the first question after the server is."""
    urls = {"hot": f"redis://127.0.0.1:{proxy.port}?prefix=health", "warm": f"sqlite://{settings.home / 'warm.sqlite'}"}
    async with open_engine(replace(settings, **urls), observer=watcher) as engine:
        assert watcher.states == [("hot", CLOSED)]
        assert (await engine.health())["hot"] == "ok"
        proxy.refuse = True
        proxy.cut()
        said = [(await engine.health())["hot"] for _ in range(THRESHOLD + 2)]
        asked = said.count("store-unavailable")  # the flusher asks too, and its failures count
        assert said == ["store-unavailable"] * asked + ["store-down"] * (THRESHOLD + 2 - asked)
        assert asked <= THRESHOLD
        proxy.heal()

        async def well() -> bool:
            return (await engine.health())["hot"] == "ok"

        await until(well)
    assert [state for _, state in watcher.states[:2]] == [CLOSED, OPENED]
    assert watcher.states[-1] == ("hot", CLOSED)


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await happened():
            await asyncio.sleep(0.01)
