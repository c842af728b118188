"""One of several processes that race on one file, database or bucket; started by the stores' tests, prints what it was
told as JSON.

It says ``ready``, waits for a line, and goes: so that all of them go at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from holdfast.errors import AlreadyExistsError, LimitExceededError, StoreUnavailableError
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.ports.hot import HotStore
from holdfast.ports.warm import WarmStore
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing.broken import Around, Unchecked
from holdfast.testing.linearizability import Op
from holdfast.testing.samples import NOW, content, entry_at, head_at, later, write_at
from holdfast.testing.warm_handles import lines, log

NAMES = [b"%d" % number for number in range(40)]
AUTHORS = 2
"""Tasks of one process that each send one request at a time."""


async def steps(store: HotStore, name: str, rounds: int) -> list[str]:
    """Try to make every step; the steps that were made."""
    made = []
    for step in range(2, rounds + 2):
        if await store.write(write_at("s", step, f"{name}-{step}", items=NAMES), now=NOW):
            made.append(f"{name}-{step}")
        loaded = await store.load("s")
        assert loaded is not None
        head, items = loaded
        assert head.step >= step
        assert {(item.version, item.sealed) for item in items} == {
            (head.step, content(f"{name!r} {head.step}")) for name in NAMES
        }
    return made


async def creations(store: HotStore, name: str, rounds: int) -> list[str]:
    """Create sessions until a quota of ``rounds`` is used up, discarding one now and then; those that are left."""
    made: list[str] = []
    for number in range(3 * rounds):
        try:
            if await store.write(write_at(f"{name}-{number}", 1, quota=rounds), now=NOW):
                made.append(f"{name}-{number}")
        except LimitExceededError:
            continue
        if number % 3 == 2 and made and number < 2 * rounds:  # thereafter all is used up
            assert await store.write(write_at(made.pop(), 2, commit=False, status="discarded"), now=NOW)
    return made


async def fences(store: HotStore, name: str, rounds: int) -> list[int]:
    """Take the lease by force again and again; the fences granted."""
    granted = []
    for _ in range(rounds):
        lease = await store.acquire("s", name, seconds=30, now=NOW, force=True)
        assert lease is not None
        granted.append(lease.fence)
    return granted


async def epochs(store: HotStore, name: str, rounds: int) -> list[float]:
    """Offer an epoch for each boot; the answers."""
    return [(await store.epoch(f"boot {at}", later(len(name) + at))).timestamp() for at in range(rounds)]


async def history(store: HotStore, name: str, rounds: int) -> list[Op]:
    """Read and write one session at random, strictly; what was asked and what was answered, for the checker."""
    ops: list[Op] = []

    async def author(which: int) -> None:
        chance = random.Random(f"{name} {which}")
        client = 100 * len(name) + which
        seen = 1
        for number in range(rounds):
            begun = time.monotonic_ns()
            try:
                if chance.random() < 0.4:
                    loaded = await store.load("s")
                    assert loaded is not None
                    seen = loaded[0].step
                    ops.append(_op(client, begun, verb="read", version=seen, items=_texts(loaded[1])))
                    continue
                change, key = f"{name}-{which}-{number}", f"k{chance.randrange(4)}"
                landed = await store.write(_write(seen, change, key), now=NOW)
                told: dict[str, Any] = {"verb": "edit", "expected": seen, "change": change, "puts": {key: change}}
                if landed:
                    seen += 1
                    ops.append(_op(client, begun, version=seen, **told))
                    continue
                refused = _op(client, begun, **told, outcome="refused")
                begun = time.monotonic_ns()
                head = await store.head("s")
                assert head is not None
                seen = head.step
                ops.extend((refused, _op(client, begun, verb="read", version=seen)))
            except StoreUnavailableError:
                continue  # of a read; none is expected of a write here

    await asyncio.gather(*(author(which) for which in range(AUTHORS)))
    return ops


def _op(client: int, begun: int, **told: Any) -> Op:
    told.setdefault("outcome", "ok")
    return Op(client=client, invoked=begun, returned=time.monotonic_ns(), **told)


def _write(seen: int, change: str, key: str) -> Write:
    step = seen + 1
    item = SealedItem(key.encode(), step, change.encode())
    return Write(seen, head_at("s", step), entry_at("s", step, change), (item,))


def _texts(items: list[SealedItem]) -> dict[str, str]:
    return {item.id.decode(): (item.sealed or b"").decode() for item in items}


class Remembering(Around):
    """Takes what it has read once for the newest, for a hundredth of a second."""

    _read: ClassVar[dict[str, tuple[float, Any]]] = {}

    async def load(self, session: str) -> tuple[SealedHead, list[SealedItem]] | None:
        at, loaded = self._read.get(session, (0.0, None))
        if loaded is None or time.monotonic() - at > 0.01:
            loaded = await self._store.load(session)
            self._read[session] = (time.monotonic(), loaded)
        return loaded  # type: ignore[no-any-return]


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
    random.Random(name).shuffle(sessions)
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


async def puts(url: str, name: str, rounds: int) -> list[int]:
    """Put objects under the same keys as everybody else; those that were put."""
    from holdfast.stores.cold.objects import ObjectColdStore

    store, made = ObjectColdStore.open(url), []
    for number in range(rounds):
        with contextlib.suppress(AlreadyExistsError):
            await store.put(f"race/{number}", name.encode() * 10_000)
            made.append(number)
    await store.close()
    return made


async def warm_at(place: str) -> WarmStore:
    """The warm store of a URL or of a path."""
    if place.startswith("postgresql://"):
        from holdfast.stores.warm.postgres import PostgresWarmStore

        return await PostgresWarmStore.open(place)
    return SqliteWarmStore.open(place)


async def redis_at(url: str) -> HotStore:
    """The hot store of a URL, once a connection is there: it is not what the race is about."""
    from holdfast.stores.hot.redis import RedisHotStore

    hot = await RedisHotStore.open(url)
    await hot.head("s")
    return hot


HOT: dict[str, Callable[[HotStore, str, int], Coroutine[Any, Any, object]]] = {
    race.__name__: race for race in (steps, creations, fences, epochs, history)
}
OTHERS: dict[str, Callable[[str, str, int], Coroutine[Any, Any, object]]] = {
    race.__name__: race for race in (audit, appends, batches, openings, puts)
}
BROKEN: dict[str, type[Around]] = {broken.__name__: broken for broken in (Unchecked, Remembering)}


async def main(kind: str, place: str, broken: str, name: str, rounds: int) -> object:
    """Race; files are opened, and made, within the race."""
    hot = await redis_at(place) if place.startswith("redis") else None
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    if kind in OTHERS:
        return await OTHERS[kind](place, name, rounds)
    hot = hot or SqliteHotStore.open(Path(place))
    try:
        return await HOT[kind](BROKEN.get(broken, Around)(hot), name, rounds)
    finally:
        await hot.close()


if __name__ == "__main__":
    race_kind, where, how, own_name, count = sys.argv[1:]
    told = asyncio.run(main(race_kind, where, how, own_name, int(count)))
    print(msgspec.json.encode(told).decode())
