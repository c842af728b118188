"""``redis.commit.one`` and ``redis.commit.tasks32`` beside the bare EVALSHA on the same server, in the same run.

The floor is a script that compares a version, writes a field and appends to a stream, in the sizes of the store's own
rows, through redis-py as it comes (its pool, no retry). Rounds alternate between the two, so that a disturbance meets
both. Also the optimistic way without a script: WATCH, read, MULTI, write, EXEC.

    python bench/redis_commit.py [seconds of each round] [rounds] [appendfsync]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio as driver
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import WatchError

from holdfast.model.session import SealedItem, Write
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.samples import NOW, content, entry_at, head_at
from holdfast.testing.servers import redis_server

Step = Callable[[int, int], Awaitable[None]]
"""One commit: of which task, and its how manieth."""

BARE = """
if (redis.call('HGET', KEYS[1], 'step') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'step', ARGV[2], ARGV[3], ARGV[4])
redis.call('XADD', KEYS[2], '*', 'e', ARGV[5])
return 1
"""
ITEM, ENTRY, HEAD = 1_100, 1_300, 500  # bytes of a 1 KB item sealed, its entry, a head
ITEMS = 20


async def measure(step: Step, tasks: int, seconds: float, at: list[int]) -> list[float]:
    """Run closed loops for a while; how long each commit took."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def loop(task: int) -> None:
        while (start := time.perf_counter()) < end:
            at[task] += 1
            await step(task, at[task])
            took.append(time.perf_counter() - start)

    await asyncio.gather(*(loop(task) for task in range(tasks)))
    return took


async def main(seconds: float, rounds: int, fsync: str) -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder), appendfsync=fsync) as server:
        durability = "disk" if fsync == "always" else "hot"
        lanes = int(words[3]) if len(words := sys.argv[1:]) > 3 else 16
        store = await RedisHotStore.open(server.url, durability=durability, lanes=lanes)
        pool = driver.Redis(host="127.0.0.1", port=server.port, protocol=2, retry=Retry(NoBackoff(), 0))
        sha = await pool.script_load(BARE)
        for task in range(32):
            items = tuple(SealedItem(b"%d" % n, 1, content(f"{n}", ITEM)) for n in range(ITEMS))
            head = head_at(f"s{task}", 1, sealed=content("head", HEAD))
            entry = entry_at(f"s{task}", 1, "c1", payload=content("e", ENTRY))
            assert await store.write(Write(0, head, entry, items), now=NOW)
            fields: dict[Any, Any] = {b"%d" % n: content(f"{n}", ITEM) for n in range(ITEMS)}
            await pool.hset(f"bare:{task}", mapping={"step": "0", **fields})
            await pool.hset(f"watch:{task}", mapping={"step": "0", **fields})
        item, payload, sealed = content("item", ITEM), content("payload", ENTRY), content("sealed", HEAD)

        async def ours(task: int, at: int) -> None:
            name, step = f"s{task}", at + 1
            write = Write(
                step - 1,
                head_at(name, step, sealed=sealed),
                entry_at(name, step, f"{task}-{step}", payload=payload),
                (SealedItem(b"7", step, item),),
            )
            assert await store.write(write, now=NOW)

        async def bare(task: int, at: int) -> None:
            given = (f"bare:{task}", f"bare-log:{task}", at - 1, at, "7", item, payload)
            assert await pool.evalsha(sha, 2, *given) == 1

        async def watched(task: int, at: int) -> None:
            pipe: Any
            async with pool.pipeline() as pipe:
                while True:
                    try:
                        await pipe.watch(f"watch:{task}")
                        assert int(await pipe.hget(f"watch:{task}", "step") or 0) == at - 1
                        pipe.multi()
                        pipe.hset(f"watch:{task}", mapping={"step": at, "7": item})
                        pipe.xadd(f"watch-log:{task}", {"e": payload})
                        await pipe.execute()
                        break
                    except WatchError:
                        continue

        for tasks in (1, 32):
            ways = {"bare EVALSHA": bare, "holdfast": ours, "WATCH/MULTI/EXEC": watched}
            took: dict[str, list[float]] = {name: [] for name in ways}
            rates: dict[str, list[float]] = {name: [] for name in ways}
            counts = _COUNTS
            for turn in range(rounds + 1):
                for name, step in ways.items():
                    start = time.perf_counter()
                    times = await measure(step, tasks, seconds, counts.setdefault(name, [0] * 32))
                    if turn:  # the first round warms up
                        took[name] += times
                        rates[name].append(len(times) / (time.perf_counter() - start))
            print(f"\n{tasks} task(s), appendfsync {fsync}")
            for name in ways:
                p50, p99 = (statistics.quantiles(took[name], n=100)[at - 1] * 1e6 for at in (50, 99))
                rate = statistics.median(rates[name])
                print(f"  {name:18} p50 {p50:7.0f} us   p99 {p99:7.0f} us   {rate:8.0f}/s", end="")
                floor = statistics.median(took["bare EVALSHA"]) * 1e6
                print(
                    f"   p50 ratio {p50 / floor:.2f}   rate ratio {rate / statistics.median(rates['bare EVALSHA']):.2f}"
                )
        await read(store, pool, seconds)
        await pool.aclose()
        await store.close()


_COUNTS: dict[str, list[int]] = {}


async def read(store: RedisHotStore, pool: driver.Redis, seconds: float) -> None:
    """``redis.load20`` beside a bare HGETALL of the same bytes."""

    async def ours(task: int, at: int) -> None:
        assert await store.load("s1") is not None

    async def bare(task: int, at: int) -> None:
        assert await pool.hgetall("bare:1")

    medians = {}
    for _ in range(3):
        for name, step in (("bare HGETALL", bare), ("load20", ours)):
            medians[name] = statistics.median(await measure(step, 1, seconds, [0])) * 1e6
    print("\nload of 20 items: " + "   ".join(f"{name} p50 {us:.0f} us" for name, us in medians.items()), end="")
    print(f"   ratio {medians['load20'] / medians['bare HGETALL']:.2f}")


if __name__ == "__main__":
    words = sys.argv[1:]
    asyncio.run(
        main(
            float(words[0]) if words else 1.0,
            int(words[1]) if len(words) > 1 else 4,
            words[2] if len(words) > 2 else "always",
        )
    )
