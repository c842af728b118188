"""One of several processes that race on one SQLite file or PostgreSQL database; started by the stores' tests.

It prints what it was told as JSON.
It says ``ready``, waits for a line, and goes: so that all of them go at once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from holdfast.errors import LimitExceededError
from holdfast.ports.warm import WarmStore
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing.samples import NOW, content, entry_at, head_at, later, write_at
from holdfast.testing.warm_handles import lines, log

NAMES = [b"%d" % number for number in range(40)]


async def steps(path: Path, name: str, rounds: int) -> list[str]:
    """Try to make every step; the steps that were made."""
    store, made = SqliteHotStore.open(path), []
    for step in range(2, rounds + 2):
        if await store.write(write_at("s", step, f"{name}-{step}", items=NAMES), now=NOW):
            made.append(f"{name}-{step}")
        loaded = await store.load("s")
        assert loaded is not None
        head, items = loaded
        assert head.step >= step
        assert [(item.version, item.sealed) for item in items] == [
            (head.step, content(f"{item.id!r} {head.step}")) for item in items
        ]
    await store.close()
    return made


async def creations(path: Path, name: str, rounds: int) -> list[str]:
    """Create sessions until a quota of ``rounds`` is used up; those that were created."""
    store, made = SqliteHotStore.open(path), []
    for number in range(rounds + 1):
        try:
            if await store.write(write_at(f"{name}-{number}", 1, quota=rounds), now=NOW):
                made.append(f"{name}-{number}")
        except LimitExceededError:
            break
    await store.close()
    return made


async def fences(path: Path, name: str, rounds: int) -> list[int]:
    """Take the lease by force again and again; the fences granted."""
    store, granted = SqliteHotStore.open(path), []
    for _ in range(rounds):
        lease = await store.acquire("s", name, seconds=30, now=NOW, force=True)
        assert lease is not None
        granted.append(lease.fence)
    await store.close()
    return granted


async def epochs(path: Path, name: str, rounds: int) -> list[float]:
    """Offer an epoch for each boot; the answers."""
    store = SqliteHotStore.open(path)
    answers = [(await store.epoch(f"boot {number}", later(len(name) + number))).timestamp() for number in range(rounds)]
    await store.close()
    return answers


async def audit(place: str, name: str, rounds: int) -> list[str]:
    """Append lines to one chain, each after whatever is last; the lines that were appended."""
    store, made = await warm_at(place), []
    for number in range(rounds):
        line = f"{name}-{number}"
        while True:
            chains = await store.chains()
            seq = chains["acme"].seq + 1 if chains else 1
            row = msgspec.structs.replace(lines("acme", seq, seq)[0], line=line.encode())
            if await store.record([row], end=line.encode()):
                made.append(line)
                break
    await store.close()
    return made


async def appends(place: str, name: str, rounds: int) -> list[int]:
    """Append the same log as everybody else, in parts of another size; the steps appended."""
    store, size = await warm_at(place), len(name) + 1
    for start in range(1, rounds + 1, size):
        last = min(start + size - 1, rounds)
        await store.append(head_at("s", last), log("s", start, last))
    assert await store.at("s", [rounds]) == {rounds: entry_at("s", rounds)}
    await store.close()
    return list(range(1, rounds + 1))


async def batches(place: str, name: str, rounds: int) -> int:
    """Append to the same sessions as everybody else, all of them in one batch, in an order of one's own."""
    store = await warm_at(place)
    sessions = [f"s{number}" for number in range(30)]
    Random(name).shuffle(sessions)
    for step in range(1, rounds + 1):
        await asyncio.gather(
            *(store.append(head_at(id, step), log(id, step, step), members=[name, f"at {step}"]) for id in sessions)
        )
    await store.close()
    return rounds


async def openings(place: str, name: str, rounds: int) -> int:
    """Open the same tables, which nobody has made yet, and keep something in them."""
    store = await warm_at(place)
    await store.append(head_at(name, 1), log(name, 1, 1))
    await store.close()
    return rounds


async def warm_at(place: str) -> WarmStore:
    """The warm store of a URL or of a path."""
    if place.startswith("postgresql://"):
        from holdfast.stores.warm.postgres import PostgresWarmStore

        return await PostgresWarmStore.open(place)
    return SqliteWarmStore.open(place)


RACES: dict[str, Callable[[Any, str, int], Coroutine[Any, Any, object]]] = {
    race.__name__: race for race in (steps, creations, fences, epochs, audit, appends, batches, openings)
}


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    kind, place, own_name, count = sys.argv[1:]
    told = asyncio.run(RACES[kind](place, own_name, int(count)))
    print(msgspec.json.encode(told).decode())
