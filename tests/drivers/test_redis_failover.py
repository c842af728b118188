"""A sentinel makes a replica the primary, and the store goes on there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.drivers.redis import Redis
from holdfast.drivers.redis_url import Address
from holdfast.errors import StoreUnavailableError
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer, redis_server

_PATIENCE = 20.0
_PAUSE = 0.01
_BEFORE = 100  # commits that the replica has before the primary is killed


@contextlib.contextmanager
def trio(folder: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A primary, its replica, and a sentinel that knows of both."""
    with (
        redis_server(folder / "primary") as primary,
        redis_server(folder / "replica", replicaof=f"127.0.0.1 {primary.port}") as replica,
    ):
        until(lambda: b"master_link_status:up" in replica.say("INFO", "replication"))
        watch = folder / "sentinel"
        watch.mkdir()
        (watch / "sentinel.conf").write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 300\n"
            "sentinel failover-timeout main 3000\n"
        )
        sentinel = RedisServer.sentinel(watch)
        try:
            sentinel.start()
            until(lambda: b"slave" in (told := sentinel.say("SENTINEL", "REPLICAS", "main")) and b"disc" not in told)
            yield primary, replica, sentinel
        finally:
            sentinel.kill()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become so."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(_PAUSE)


async def written(store: RedisHotStore, session: str, step: int, *, patience: float) -> int:
    """Write until it has landed, or until somebody says that it has; how many times the answer was lost."""
    deadline, lost = time.monotonic() + patience, 0
    while True:
        try:
            landed = await store.write(write_at(session, step), now=NOW)
            assert landed or lost
            return lost
        except StoreUnavailableError:
            lost += 1
            assert time.monotonic() < deadline
            await asyncio.sleep(_PAUSE)


async def fail_over(folder: Path, *, patience: float = _PATIENCE) -> float:
    """How many seconds it took until a write landed at the new primary."""
    with trio(folder) as (primary, replica, sentinel):
        store = await RedisHotStore.open(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        try:
            for step in range(1, _BEFORE + 1):
                await written(store, "s", step, patience=1)
            key = store.keys.session("s").session.decode()
            last = b"\r\n%d\r\n" % _BEFORE
            await asyncio.to_thread(until, lambda: replica.say("HGET", key, "step").endswith(last))
            before = store.generation
            primary.kill()
            began = time.monotonic()
            assert await written(store, "t", 1, patience=patience) > 0
            took = time.monotonic() - began
            assert store.generation > before
            assert b"role:master" in replica.say("INFO", "replication")
            entries = await store.entries("s", after=0, limit=_BEFORE + 1)
            assert [entry.step for entry in entries] == list(range(1, _BEFORE + 1))
            assert await store.whole()
            assert await store.write(write_at("s", _BEFORE), now=NOW) is False  # its change id is known here too
            for step in range(2, 50):
                await written(store, "t", step, patience=_PATIENCE)
            await written(store, "s", _BEFORE + 1, patience=_PATIENCE)
        finally:
            await store.close()
        return took


async def test_what_the_replica_had_is_there_after_a_failover_and_writes_go_on(tmp_path: Path) -> None:
    """R05: that includes the change ids."""
    assert await fail_over(tmp_path) < _PATIENCE


async def _remembered(redis: Redis) -> Address:
    """The primary as it was told first."""
    if not hasattr(redis, "told"):
        redis.told = await _MASTER(redis)  # type: ignore[attr-defined]
    return redis.told  # type: ignore[attr-defined,no-any-return]


async def _one_life(*_: object) -> str:
    return "the same for ever"


_MASTER = Redis._master


@pytest.mark.parametrize(
    ("broken", "why"), [("remembers the primary", "monotonic"), ("takes every server for the same", "generation")]
)
async def test_teeth_a_driver_that_does_not_follow_or_does_not_tell_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, why: str
) -> None:
    if broken == "remembers the primary":
        monkeypatch.setattr(Redis, "_master", _remembered)
    else:
        monkeypatch.setattr("holdfast.drivers.redis.check", _one_life)
    with pytest.raises(AssertionError, match=why):
        await fail_over(tmp_path, patience=6)
