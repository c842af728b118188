"""R02: processes that race on one Redis, or on one cluster, are told what one session could have told them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.hot_handles import build
from holdfast.testing.linearizability import Contradiction, Op, check
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer

pytestmark = pytest.mark.no_cover  # repeats what others measure once

Race = Callable[..., dict[str, Any]]

ROUNDS = 40
PROCESSES = 4


@pytest.fixture(params=["one server", "a cluster"])
def url(request: pytest.FixtureRequest, prefix: str) -> str:
    if request.param == "a cluster":
        servers: list[RedisServer] = request.getfixturevalue("cluster")
        return f"redis+cluster://127.0.0.1:{servers[0].port}?prefix={prefix}"
    server: RedisServer = request.getfixturevalue("redis")
    return f"{server.url}?prefix={prefix}"


async def test_of_racing_processes_exactly_one_makes_each_step(url: str, race: Race) -> None:
    store = await RedisHotStore.open(url)
    assert await store.write(write_at("s", 1), now=NOW)
    told = race("steps", url, rounds=ROUNDS)
    log = await store.entries("s", after=1, limit=999)
    assert [entry.step for entry in log] == list(range(2, ROUNDS + 2))
    assert sorted(entry.change for entry in log) == sorted(change for made in told.values() for change in made)
    await store.close()


async def test_a_quota_is_exact_among_racing_processes(url: str, race: Race) -> None:
    told = race("creations", url, rounds=10)  # nobody has opened it yet: the processes race to lay it out, too
    made = [session for sessions in told.values() for session in sessions]
    assert len(made) == 10
    store = await RedisHotStore.open(url)
    for session in made:
        head = await store.head(session)
        assert head is not None
        assert head.status == "draft"
    await store.close()


async def test_no_two_processes_are_granted_the_same_fence(url: str, race: Race) -> None:
    store = await RedisHotStore.open(url)
    await build(store, 1)
    told = race("fences", url, rounds=ROUNDS)
    assert all(granted == sorted(granted) for granted in told.values())
    assert sorted(fence for granted in told.values() for fence in granted) == list(range(1, PROCESSES * ROUNDS + 1))
    await store.close()


async def test_all_processes_are_told_the_same_epochs_which_never_fall(url: str, race: Race) -> None:
    told = list(race("epochs", url, rounds=ROUNDS).values())
    assert all(answers == told[0] for answers in told)
    assert told[0] == sorted(told[0])


async def contradictions(url: str, race: Race, broken: str = "") -> tuple[list[Contradiction], Counter[str]]:
    """What in a history of the processes cannot be, and what was asked."""
    hot = await RedisHotStore.open(url)
    assert await hot.write(write_at("s", 1), now=NOW)
    await hot.close()
    told = race("history", url, rounds=150, processes=PROCESSES, broken=broken)
    first = Op(client=0, verb="create", outcome="ok", invoked=0, returned=1, version=1, change="c1")
    ops = [first, *(op for part in told.values() for op in msgspec.convert(part, list[Op]))]
    return check(ops), Counter(f"{op.verb} {op.outcome}" for op in ops)


async def test_r02_what_several_processes_are_told_is_linearizable(url: str, race: Race) -> None:
    found, counts = await contradictions(url, race)
    print(f"R02 on Redis: processes={PROCESSES} contradictions={len(found)} counts={dict(counts)}")
    assert [str(one) for one in found[:5]] == []
    assert min(counts["read ok"], counts["edit ok"], counts["edit refused"]) > 20


@pytest.mark.parametrize(("broken", "rule"), [("Unchecked", "unique"), ("Remembering", "order")])
async def test_teeth_a_broken_store_is_caught(
    redis: RedisServer, prefix: str, race: Race, broken: str, rule: str
) -> None:
    """Two writers told saved at one version; a read that sees less than was acknowledged before it."""
    found, _ = await contradictions(f"{redis.url}?prefix={prefix}", race, broken)
    assert rule in {one.rule for one in found}
