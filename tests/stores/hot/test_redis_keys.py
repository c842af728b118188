"""What the Redis hot store keeps, and where: prefixes, partitions, the queue, the count of an owner's sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from holdfast.drivers.redis import Redis
from holdfast.errors import ConfigurationError, LimitExceededError, StoreUnavailableError, TamperedError
from holdfast.stores.hot import redis_keys
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.stores.hot.redis_quota import Quota
from holdfast.testing.flushqueue import claimed
from holdfast.testing.hot_handles import build
from holdfast.testing.samples import NOW, later, write_at
from holdfast.testing.servers import RedisServer, redis_server


async def keys_of(store: RedisHotStore) -> set[bytes]:
    return set(await store._redis.ask(b"", b"KEYS", b"*"))


async def test_every_key_there_is_is_documented(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(f"{server.url}?prefix=p&partitions=1")
        await build(store, 2, due=1.0)
        await store.acquire("s", "ana", seconds=30, now=NOW)
        await store.epoch("boot", NOW)
        await build(store, 1, session="evicted")
        await store.evict("evicted", step=1, now=NOW)
        await build(store, 1, session="buried")
        await store.bury([one for one in await claimed(store) if one.session == "buried"], "broken")
        found = {key.decode(errors="replace") for key in await keys_of(store)}
        kinds = {"{p:0}:s:s", "{p:0}:l:s", "{p:0}:d", "{p:0}:m", "{p:0}:n", "{p:0}:q", "{p}:layout", "{p}:epochs"}
        kinds |= {"{p:0}:b", "{p:0}:e", "{p:0}:f", "{p:0}:r", "{p:0}:i"}
        owner = "{p:0}:o:"
        assert {key for key in found if not key.startswith(owner) and not key.endswith(":buried")} == kinds
        for kind in [*kinds, owner]:
            name = kind.replace("{p:0}", "{h:p}").replace("{p}", "{h}").removesuffix(":s")
            assert f"``{name}" in (redis_keys.__doc__ or ""), kind
        fields = {field.decode().partition(":")[0] for field in await store._redis.ask(b"", b"HKEYS", b"{p:0}:s:s")}
        for field in fields - {"i"}:
            assert f"``{field}``" in (redis_keys.__doc__ or ""), field
        await store.close()


async def test_what_has_another_prefix_is_another_store(redis: RedisServer, prefix: str) -> None:
    one = await RedisHotStore.open(f"{redis.url}?prefix={prefix}-one")
    other = await RedisHotStore.open(f"{redis.url}?prefix={prefix}-two")
    await build(one, 2, due=1.0)
    mark, _ = await other.moved(None)
    await build(one, 1, session="t")
    assert await other.head("s") is None
    assert await other.due(now=later(10**6), limit=9) == []
    assert await other.moved(mark) == (mark, set())
    for store in (one, other):
        await store.close()


async def test_another_number_of_partitions_is_refused_and_the_right_one_is_named(
    redis: RedisServer, prefix: str
) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=8")
    await store.close()
    with pytest.raises(ConfigurationError, match="set partitions=8"):
        await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=8")
    await store.close()


async def test_sessions_lie_in_all_partitions_and_on_all_servers(cluster: list[RedisServer], prefix: str) -> None:
    store = await RedisHotStore.open(f"redis+cluster://127.0.0.1:{cluster[0].port}?prefix={prefix}")
    for number in range(200):
        assert await store.write(write_at(f"s{number}", 1), now=NOW)
    assert len({store.keys.session(f"s{number}").tag for number in range(200)}) > 50
    assert all(int(server.say("DBSIZE")[1:-2]) > 20 for server in cluster)
    await store.close()


async def test_a_session_and_its_one_entry_on_the_queue_name_each_other(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    keys, queue = store.keys.session("s"), store.keys.partition(b"s").queue
    for first in (1, 4):
        for step in range(first, first + 3):
            assert await store.write(write_at("s", step), now=NOW)
        ((ticket, fields),) = await store._redis.ask(keys.tag, b"XRANGE", queue, b"-", b"+")
        assert fields == [b"s", b"s", b"n", b"%d" % first]
        assert await store._redis.ask(keys.tag, b"HGET", keys.session, b"queued") == b"%d %s" % (first, ticket)
        await store.acknowledge([(one, first + 2) for one in await claimed(store)])
        assert await store._redis.ask(keys.tag, b"HGET", keys.session, b"queued") is None
        assert await store._redis.ask(keys.tag, b"XLEN", queue) == 0
    await store.close()


async def test_a_mark_of_newer_data_than_there_is_names_every_session(redis: RedisServer, prefix: str) -> None:
    """F09: Redis came back with older data; nobody who follows a session is left waiting."""
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    await build(store, 3)
    await build(store, 3, session="t")
    mark, _ = await store.moved(None)
    for session in ("s", "t"):
        part = store.keys.partition(session.encode())
        await store._redis.ask(part.tag, b"SET", part.written, b"1")
    following, moved = await store.moved(mark)
    assert moved == {"s", "t"}
    assert following != mark
    await store.close()


async def test_a_log_that_is_ahead_of_its_head_is_told_as_tampering_not_as_a_race(
    redis: RedisServer, prefix: str
) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    await build(store, 3)
    keys = store.keys.session("s")
    await store._redis.ask(keys.tag, b"HSET", keys.session, b"step", b"2")
    with pytest.raises(TamperedError, match="log of session s"):
        await store.write(write_at("s", 3, "another"), now=NOW)
    assert await store.write(write_at("s", 3, "c3"), now=NOW) is False  # its change id is in the log
    await store._redis.ask(keys.tag, b"HSET", keys.log, b"1", b"torn")
    with pytest.raises(TamperedError):
        await store.at("s", [1])
    await store._redis.ask(keys.tag, b"HSET", keys.session, b"about", b"\xff")
    with pytest.raises(TamperedError):
        await store.head("s")
    await store._redis.ask(keys.tag, b"DEL", keys.session)
    await store._redis.ask(keys.tag, b"SET", keys.session, b"something else")
    with pytest.raises(TamperedError):
        await store.head("s")
    await store.close()


async def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    for step in range(1, 5):
        redis.say("SCRIPT", "FLUSH")
        assert await store.write(write_at("s", step), now=NOW)
        redis.say("SCRIPT", "FLUSH")
        assert len(await store.entries("s", after=0, limit=9)) == step
    await store.close()


async def test_commits_that_are_ready_in_one_turn_share_pipelines(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&lanes=4")
    for number in range(32):
        assert await store.write(write_at(f"s{number}", 1), now=NOW)
    redis.say("CONFIG", "RESETSTAT")
    await asyncio.gather(*(store.write(write_at(f"s{number}", 2), now=NOW) for number in range(32)))
    told = redis.say("INFO", "stats").decode()
    reads = next(int(line.partition(":")[2]) for line in told.splitlines() if line.startswith("total_reads_processed"))
    assert reads <= 8  # a pipeline is read at once, and this question is one of them
    await store.close()


async def test_a_long_log_is_purged_and_trimmed_in_parts(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    await build(store, 1)
    for start in range(2, 2_402, 50):
        await asyncio.gather(*(store.write(write_at("s", step), now=NOW) for step in range(start, start + 50)))
    head = await store.head("s")
    assert head is not None
    log = await store.entries("s", after=0, limit=10_000)
    assert [entry.step for entry in log] == list(range(1, head.step + 1))
    await store.trim("s", below=1_500)
    await store.purge("s")
    left = await store.entries("s", after=0, limit=10_000)
    assert [entry.step for entry in left] == list(range(1_500, head.step + 1))
    assert all(len(entry.payload) == 32 for entry in left)
    await store.close()


# -- the count of an owner's sessions ----------------------------------------------------------------------------------


class DiesBeforeMaking(RedisHotStore):
    """Counts the session, and is heard of no more."""

    async def _send(self, *given: Any) -> Any:
        raise StoreUnavailableError("hot", "killed here")


def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted and not made is taken for dead at once."""
    monkeypatch.setattr("holdfast.stores.hot.redis_quota._UNDER_WAY", 0)


async def test_what_was_counted_and_never_made_counts_no_more_once_the_quota_is_reached(
    redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    dying = await DiesBeforeMaking.open(f"{redis.url}?prefix={prefix}")
    for number in range(3):
        with pytest.raises(StoreUnavailableError):
            await dying.write(write_at(f"dead{number}", 1, quota=3), now=NOW)
    with pytest.raises(LimitExceededError):  # they may be under way
        await store.write(write_at("s0", 1, quota=3), now=NOW)
    aged(monkeypatch)
    for number in range(3):
        assert await store.write(write_at(f"s{number}", 1, quota=3), now=NOW)
    with pytest.raises(LimitExceededError):
        await store.write(write_at("s3", 1, quota=3), now=NOW)
    for one in (store, dying):
        await one.close()


class Slow(RedisHotStore):
    """Waits between counting a session and making it."""

    async def _send(self, *given: Any) -> Any:
        self.counted.set()
        await self.go.wait()
        return await super()._send(*given)

    def __init__(self, redis: Redis, **more: Any) -> None:
        super().__init__(redis, **more)
        self.counted, self.go = asyncio.Event(), asyncio.Event()


@pytest.mark.parametrize("void", [True, False])
async def test_one_that_was_taken_for_dead_is_counted_anew_or_refused(
    redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch, void: bool
) -> None:
    aged(monkeypatch)
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    slow: Any = await Slow.open(f"{redis.url}?prefix={prefix}")
    if not void:  # the teeth: without the mark that its token counts no more, there is one too many
        monkeypatch.setattr(slow.keys, "void", lambda keys, token: b"{%s}:v:none" % keys.tag)
    sending = asyncio.ensure_future(slow.write(write_at("slow", 1, quota=1), now=NOW))
    await slow.counted.wait()
    assert await store.write(write_at("quick", 1, quota=1), now=NOW)
    slow.go.set()
    outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
    made = [name for name in ("slow", "quick") if await store.head(name) is not None]
    if void:
        assert isinstance(outcome, LimitExceededError)
        assert made == ["quick"]
    else:
        assert made == ["slow", "quick"]
    for one in (store, slow):
        await one.close()


async def test_a_session_that_comes_back_is_counted_again(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    for number in range(2):
        assert await store.write(write_at(f"s{number}", 1, quota=2), now=NOW)
    assert await store.write(write_at("s0", 2, commit=False, status="discarded"), now=NOW)
    assert await store.write(write_at("s2", 1, quota=2), now=NOW)  # s0 was dropped to make room
    assert await store.write(write_at("s0", 3, commit=False, status="draft"), now=NOW)  # revived: bound by no quota
    assert await store.write(write_at("s1", 2, commit=False, status="expired"), now=NOW)
    with pytest.raises(LimitExceededError) as refused:  # s0 and s2
        await store.write(write_at("s3", 1, quota=2), now=NOW)
    assert refused.value.figure == 3
    await store.close()


async def test_a_count_is_of_one_tenant_and_owner_whatever_they_are_called(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    names = ["a", "a:b", "a:", "", "{a}", "ä"]
    for at, (tenant, owner) in enumerate((tenant, owner) for tenant in names for owner in names):
        assert await store.write(write_at(f"s{at}", 1, quota=1, tenant=tenant, owner=owner), now=NOW)
    await store.close()


class CountsNoMore(Quota):
    """Broken: takes every session it has counted for gone."""

    async def _settled(self, counted: dict[bytes, bytes], second: int) -> list[bytes]:
        return [part for pair in counted.items() for part in pair]


async def test_teeth_a_count_that_is_dropped_without_looking_lets_too_many_in(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    store._quota = CountsNoMore(store._redis, store.keys)
    made = 0
    for number in range(5):
        made += await store.write(write_at(f"s{number}", 1, quota=2), now=NOW)
    assert made > 2
    await store.close()


# -- a cluster that is rearranged --------------------------------------------------------------------------------------


async def test_writes_go_on_while_a_slot_moves_to_another_server(cluster: list[RedisServer], prefix: str) -> None:
    store = await RedisHotStore.open(f"redis+cluster://127.0.0.1:{cluster[0].port}?prefix={prefix}")
    await build(store, 3)
    keys = store.keys.session("s")
    slot = str(key_slot(keys.tag))
    ids = [server.say("CLUSTER", "MYID").split(b"\r\n")[1].decode() for server in cluster]
    here = next(at for at, server in enumerate(cluster) if server.say("HLEN", keys.session.decode())[:1] != b"-")
    there = (here + 1) % len(cluster)
    cluster[there].say("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[here])
    cluster[here].say("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[there])
    names = cluster[here].say("CLUSTER", "GETKEYSINSLOT", slot, "100").split(b"\r\n")[2::2]
    port = str(cluster[there].port)
    cluster[here].say("MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS", *names)
    assert await store.head("s") is not None  # ASK
    sending = asyncio.ensure_future(store.write(write_at("s", 4), now=NOW))  # TRYAGAIN: some keys are not there yet
    await asyncio.sleep(0.1)
    assert not sending.done()
    for server in cluster:
        server.say("CLUSTER", "SETSLOT", slot, "NODE", ids[there])
    assert await sending
    assert await store.write(write_at("s", 5), now=NOW)  # MOVED
    head = await store.head("s")
    assert head is not None
    assert head.step == 5
    assert [entry.step for entry in await store.entries("s", after=0, limit=9)] == [1, 2, 3, 4, 5]
    await store.close()
