"""F08, R11: Redis is gone, silent or slow. Within a second every caller is told that the outcome is unknown; when it is
back, the store is too, by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from holdfast.errors import StoreUnavailableError
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.proxy import Proxy
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer

TOLD = 1.0
BUSY = 1.0
"""Seconds more that a machine may take which is busy with other tests; what was seen is printed."""
BACK = 5.0


@pytest.fixture
async def proxy(redis: RedisServer) -> AsyncIterator[Proxy]:
    async with Proxy(*redis.address).listening() as proxy:
        yield proxy


async def ask(store: RedisHotStore) -> list[float]:
    """Ask all sorts of things at once, twice over; how long each was kept waiting to hear that nobody answers."""
    took = []

    async def timed(question: Callable[[], Awaitable[object]]) -> None:
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await question()
        took.append(time.monotonic() - begun)

    questions: list[Callable[[], Awaitable[object]]] = [
        lambda: store.head("s"),
        lambda: store.load("s"),
        lambda: store.write(write_at("s", 2), now=NOW),
        lambda: store.write(write_at("new", 1), now=NOW),
        lambda: store.acquire("s", "ana", seconds=30, now=NOW),
        lambda: store.moved(None),
        lambda: store.due(now=NOW, limit=9),
        lambda: store.claim("worker", limit=9, idle=1),
        lambda: store.evict("s", step=1, now=NOW),
    ]
    for _ in range(2):  # on connections that there were, and on new ones
        await asyncio.gather(*(timed(question) for question in questions for _ in range(20)))
    return took


async def back(store: RedisHotStore) -> float:
    """How long it takes until a store answers again."""
    begun = time.monotonic()
    while time.monotonic() - begun < BACK:
        try:
            await store.head("s")
            return time.monotonic() - begun
        except StoreUnavailableError:
            await asyncio.sleep(0.01)
    return BACK


@pytest.mark.parametrize("fault", ["black hole", "cut", "stopped", "killed"])
async def test_r11_whoever_asks_is_told_within_a_second_and_served_when_it_is_back(
    fault: str, redis: RedisServer, proxy: Proxy
) -> None:
    store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}")
    assert await store.write(write_at("s", 1), now=NOW)
    if fault == "black hole":
        proxy.hole = True
    elif fault == "cut":
        proxy.refuse = True
        proxy.cut()
    elif fault == "stopped":
        redis.pause()
    else:
        redis.kill()
    took = await ask(store)
    if fault == "stopped":
        redis.go_on()
    elif fault == "killed":
        await asyncio.to_thread(redis.start)
    proxy.heal()
    returned = await back(store)
    print(f"R11 {fault}: longest wait={max(took):.3f} s, back after={returned:.3f} s")
    assert max(took) < TOLD + BUSY
    assert returned < BACK
    head = await store.head("s")  # of the writes it may have taken the first
    assert head is not None
    assert head.step in (1, 2)
    await store.close()


async def test_teeth_a_longer_patience_keeps_callers_waiting(proxy: Proxy) -> None:
    store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?timeout=1.5")
    proxy.hole = True
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await store.head("s")
    assert time.monotonic() - begun > TOLD
    proxy.heal()
    await store.close()


async def test_a_slow_server_is_waited_for_as_long_as_is_set(proxy: Proxy) -> None:
    store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?timeout=3")
    proxy.delay = 0.05
    assert await store.write(write_at("s", 1), now=NOW)
    assert await store.head("s") is not None
    await store.close()


async def test_replies_that_come_late_are_not_taken_for_those_of_others(proxy: Proxy) -> None:
    store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?timeout=0.1&lanes=1")
    for name in ("a", "b"):
        assert await store.write(write_at(name, 1), now=NOW)
    proxy.delay = 0.2
    with pytest.raises(StoreUnavailableError):
        await store.head("a")
    proxy.heal()
    for name in ("b", "a", "b"):
        head = await store.head(name)
        assert head is not None
        assert head.id == name
        assert head.sealed == write_at(name, 1).head.sealed
    await store.close()


async def test_connections_that_were_closed_while_they_lay_idle_cost_nobody_an_answer(redis: RedisServer) -> None:
    store = await RedisHotStore.open(redis.url)
    assert await store.write(write_at("s", 1), now=NOW)
    await asyncio.gather(*(store.entries("s", after=0, limit=9) for _ in range(500)))  # every lane has its connection
    redis.kill()
    redis.start()
    await asyncio.sleep(0.05)
    found = await asyncio.gather(*(store.entries("s", after=0, limit=9) for _ in range(500)))
    assert [len(one) for one in found] == [1] * 500
    await store.close()


async def test_a_caller_that_is_cancelled_while_nobody_answers_waits_for_the_outcome(proxy: Proxy) -> None:
    """F07: what was sent may have landed; the caller goes on only once that can change no more."""
    store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?timeout=0.3")
    assert await store.write(write_at("s", 1), now=NOW)
    proxy.hole = True
    sending = asyncio.ensure_future(store.write(write_at("s", 2), now=NOW))
    await asyncio.sleep(0.02)
    begun = time.monotonic()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert time.monotonic() - begun > 0.1
    proxy.heal()
    await store.close()
