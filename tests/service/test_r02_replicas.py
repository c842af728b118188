"""R02, R09, F25: what eight clients are told by four replicas on Redis, PostgreSQL and S3, one session could have told.

Histories are recorded over HTTP with connections dropped, replicas killed and started again, Redis killed and started
again, and the session set to rest or archived at random, so that it moves between the tiers under those who edit it.
``HOLDFAST_TEST_HISTORIES`` says how many (4 here, 500 in ``make histories``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.compose import open_engine
from holdfast.model.access import Principal
from holdfast.testing.broken import Around, Trusting, Unchecked
from holdfast.testing.broken_tiers import Careless, Overwriting
from holdfast.testing.fleet import Fleet, fleet, inside
from holdfast.testing.linearizability import check
from holdfast.testing.objects import give_credentials
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.recorder import Recorder, Unanswered
from holdfast.testing.servers import RedisServer

pytestmark = pytest.mark.no_cover  # repeats what others measure once

HISTORIES = int(os.environ.get("HOLDFAST_TEST_HISTORIES", "4"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "1"))
REQUESTS, CLIENTS, REPLICAS = 200, 8, 4
SUSPENDS = 0.06
"""The share of requests that set the session to rest."""
DOWN = 0.3
"""Seconds between the end of Redis and its beginning."""
ROOT = Principal("root", tenant="local", roles=frozenset({"admin", "operator"}))


async def test_r02_what_four_replicas_on_redis_and_postgresql_tell_eight_clients_is_linearizable(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_credentials(monkeypatch)
    found, checked, spent = [], 0, 0.0
    async with fleet(tmp_path, REPLICAS, s3=True, postgres=postgres) as replicas:
        recorder = Recorder(replicas.doors, SEED, suspends=SUSPENDS)
        for number in range(HISTORIES):
            begun, killed = recorder.asked, number % REPLICAS
            async with asyncio.TaskGroup() as group:
                group.create_task(at(recorder, begun + REQUESTS // 4, replicas.restart, killed))
                if number % 2:
                    group.create_task(at(recorder, begun + REQUESTS // 2, replicas.restart_redis, DOWN))
                ops = await recorder.record(clients=CLIENTS, count=REQUESTS)
            start = time.perf_counter()
            found += check(ops)
            spent += time.perf_counter() - start
            checked += len(ops)
        verified = await problems(replicas)
    counts = dict(sorted(recorder.counts.items()))
    print(
        f"R02 seed={SEED} histories={HISTORIES} requests={checked} clients={CLIENTS} replicas={REPLICAS}"
        f" kills={HISTORIES} of Redis={HISTORIES // 2} suspended={recorder.suspended} stale={recorder.stale}"
        f" contradictions={len(found)} checking={spent:.2f} s counts={counts}"
    )
    assert [str(one) for one in found[:10]] == []
    assert recorder.forks == []
    assert verified == []
    assert recorder.suspended > HISTORIES
    seen = ("read ok", "edit ok", "edit conflict", "edit unknown", "undo ok", "redo ok")
    assert not [what for what in seen if not recorder.counts[what]]


async def at(recorder: Recorder, asked: int, then: Callable[..., Awaitable[None]], *given: Any) -> None:
    """Wait until so many requests were sent, and do something then."""
    while recorder.asked < asked:
        await asyncio.sleep(0.002)
    await then(*given)


async def problems(replicas: Fleet) -> list[object]:
    """What ``holdfast verify`` would find."""
    async with open_engine(replicas.settings) as engine:
        return [one.problems async for one in engine.verify(ROOT) if not one.ok]


Servers = tuple[RedisServer, PostgresServer]


@pytest.fixture
def servers(redis: RedisServer, postgres: PostgresServer) -> Servers:
    return redis, postgres


# -- teeth -------------------------------------------------------------------------------------------------------------


async def broken(
    folder: Path, servers: Servers, wrap: type[Around], *, most: int = 5, suspends: float = 0.0
) -> Counter[str]:
    """Which rules histories break that two services with a broken hot store have told; as many until there is one."""
    rules: Counter[str] = Counter()
    redis, postgres = servers
    async with inside(folder, redis.url, postgres.fresh_url(), 2, wrap) as doors:
        recorder = Recorder(doors, SEED, drops=0.0, suspends=suspends, patience=5.0)
        for _ in range(most):
            try:
                rules += Counter(one.rule for one in check(await recorder.record(clients=CLIENTS, count=REQUESTS)))
            except* Unanswered as group:
                rules.update(str(one) for one in group.exceptions)
            rules["fork"] += len(recorder.forks)
            if rules.total():
                break
    print(f"{wrap.__name__}: {dict(+rules)}")
    return +rules


@pytest.mark.parametrize(("wrap", "rule"), [(Unchecked, "unique"), (Trusting, "order")])
async def test_teeth_a_broken_store_is_caught(tmp_path: Path, servers: Servers, wrap: type[Around], rule: str) -> None:
    """Two writers told saved at one version; a read that sees less than was acknowledged before it."""
    assert (await broken(tmp_path, servers, wrap))[rule] > 0


@pytest.mark.parametrize("wrap", [Careless, Overwriting])
async def test_teeth_a_tier_that_lets_go_of_what_it_should_keep_is_caught(
    tmp_path: Path, servers: Servers, wrap: type[Around]
) -> None:
    """A session forgotten before all of it was copied; an older copy put over a newer one."""
    assert await broken(tmp_path, servers, wrap, most=10, suspends=0.2)


async def test_the_same_store_unbroken_is_not_caught(tmp_path: Path, servers: Servers) -> None:
    assert await broken(tmp_path, servers, Around, most=2, suspends=SUSPENDS) == Counter()
