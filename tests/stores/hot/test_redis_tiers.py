"""What the Redis hot store owes as a tier apart, where it takes a fault or a look at its keys to see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast.drivers.redis import Script
from holdfast.errors import FlushQueueFullError, LimitExceededError, StoreFullError, StoreUnavailableError
from holdfast.model.session import SealedItem
from holdfast.ports.hot import Backlog, Buried
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.flushqueue import LONG, claimed, firsts, steps
from holdfast.testing.hot_handles import build
from holdfast.testing.proxy import Proxy
from holdfast.testing.samples import NOW, content, entry_at, head_at, write_at
from holdfast.testing.servers import RedisServer, redis_cluster, redis_server

# -- the queue -----------------------------------------------------------------------------------------------------


async def test_f11_poison_in_the_queue_is_buried_and_stops_nobody(redis: RedisServer, prefix: str) -> None:
    """F11: whatever stands in the stream that we did not write."""
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    part = store.keys.partition(b"s")
    elsewhere = next(f"x{at}" for at in range(99) if store.keys.partition(b"x%d" % at) != part).encode()
    poison = [
        (b"x", b"\xff\x00"),
        (b"s", b"s", b"n", b"one"),
        (b"s", b"s", b"n", b"-1"),
        (b"s", b"s", b"n", b"9" * 400),
        (b"n", b"1", b"s", b"s"),
        (b"s", b"s", b"n", b"1", b"m", b"1"),
        (b"s", elsewhere, b"n", b"1"),  # nobody could take it off the queue it is in
    ]
    for at, fields in enumerate(poison, 1):
        await store._redis.ask(part.tag, b"XADD", part.queue, b"*", *fields)
        assert await store.write(write_at(f"s{at}", 1), now=NOW)
    found = []
    while queued := await store.claim("a", limit=1, idle=LONG):  # nor does it look like the end of the queue
        found += queued
    assert firsts(found) == {f"s{at}": 1 for at in range(1, len(poison) + 1)}
    backlog = await store.backlog()
    assert (backlog.entries, backlog.buried) == (len(poison), len(poison))
    letters = await store.buried(limit=99)
    assert {letter.reason for letter in letters} == {"malformed"}
    assert Buried(elsewhere.decode(), 1, "malformed") in letters
    assert await store.exhume() == len(poison)
    assert await claimed(store) == []  # and it goes where it was
    assert (await store.backlog()).buried == len(poison)
    await store.close()


async def test_f11_a_session_that_is_none_stops_nobody_at_the_queue(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1")
    await build(store, 2)
    await build(store, 2, session="t")
    keys = store.keys.session("s")
    await store._redis.ask(keys.tag, b"DEL", keys.session)
    await store._redis.ask(keys.tag, b"SET", keys.session, b"something else")
    queued = await claimed(store)
    await store.bury([entry for entry in queued if entry.session == "s"], "tampered")
    await store.acknowledge([(entry, 2) for entry in queued])
    assert await claimed(store, idle=0) == []
    assert await store.exhume() == 1
    queued = await claimed(store)
    assert firsts(queued) == {"s": 1}
    await store.acknowledge([(entry, 2) for entry in queued])
    assert await store.backlog() == Backlog(0, 0.0, 0)
    await store.close()


async def test_what_is_queued_anew_is_looked_for_by_whoever_acknowledged(redis: RedisServer, prefix: str) -> None:
    """And not by the process that wrote it, which has looked already and found nothing."""
    one = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    other = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    await build(one, 2)
    queued = await one.claim("a", limit=9, idle=LONG, everywhere=False)
    assert await other.write(write_at("s", 3), now=NOW)
    assert await other.claim("b", limit=9, idle=LONG, everywhere=False) == []
    await one.acknowledge([(entry, 2) for entry in queued])
    assert steps(await one.claim("a", limit=9, idle=LONG, everywhere=False)) == [3]
    for store in (one, other):
        await store.close()


async def test_an_entry_that_was_deleted_while_it_was_claimed_stops_nobody(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1")
    names = [f"s{number}" for number in range(30)]
    for name in names:
        await build(store, 1, session=name)
    queued = await claimed(store)
    part = store.keys.partitions[0]
    await store._redis.ask(part.tag, b"XDEL", part.queue, *(one.ticket for one in queued[:25]))
    assert firsts(await store.claim("b", limit=5, idle=0)) == dict.fromkeys(names[25:], 1)
    await store.acknowledge([(one, 1) for one in queued])
    pending = await store._redis.ask(part.tag, b"XPENDING", part.queue, b"flush")
    assert pending[0] == 0
    assert (await store.backlog()).entries == 0
    await store.close()


async def test_a_queue_that_lost_its_group_is_claimed_from_the_beginning(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1")
    for name in ("s", "t", "u"):
        await build(store, 1, session=name)
    assert len(await claimed(store)) == 3
    part = store.keys.partitions[0]
    await store._redis.ask(part.tag, b"XGROUP", b"DESTROY", part.queue, b"flush")
    again = await claimed(store)
    assert [(one.session, one.tries) for one in again] == [("s", 1), ("t", 1), ("u", 1)]
    await store.acknowledge([(one, 1) for one in again])
    await store._redis.ask(part.tag, b"XGROUP", b"DESTROY", part.queue, b"flush")
    await store.acknowledge([(one, 1) for one in again])
    assert await claimed(store) == []
    await store.close()


@pytest.mark.parametrize("lost", ["stream", "entries", "counts", "written", "flushed"])
async def test_what_somebodys_hand_has_parted_comes_together_again(redis: RedisServer, prefix: str, lost: str) -> None:
    """The stream gone, or some of it, or the counts: nothing stays unflushed, nothing counts as waiting for ever."""
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1")
    part = store.keys.partitions[0]
    for session, length in (("s", 5), ("t", 3), ("u", 1)):
        await build(store, length, session=session)
    queued = {one.session: one for one in await claimed(store)}
    await store.acknowledge([(queued["s"], 2), (queued["u"], 1)])
    commands: dict[str, tuple[bytes | int | str, ...]] = {
        "stream": (b"DEL", part.queue),
        "entries": (b"XDEL", part.queue, queued["t"].ticket),
        "counts": (b"DEL", part.written, part.flushed),
        "written": (b"SET", part.written, 900),
        "flushed": (b"SET", part.flushed, 900),
    }
    await store._redis.ask(part.tag, *commands[lost])
    warm = {"s": 2, "t": 0, "u": 1}
    for _ in range(3):  # as the flusher does, round by round
        for one in await store.claim("a", limit=99, idle=0):
            head = await store.head(one.session)
            assert head is not None
            warm[one.session] = head.step
            await store.acknowledge([(one, head.step)])
    assert warm == {"s": 5, "t": 3, "u": 1}
    assert (await store.backlog()).entries == 0
    await build(store, 4, session="v")
    assert await store.write(write_at("s", 6), now=NOW)
    assert (await store.backlog()).entries == 5
    assert firsts(await claimed(store)) == {"s": 6, "v": 1}
    await store.close()


@pytest.mark.parametrize("bound", [1, 3])
async def test_counts_that_are_wrong_refuse_no_writes_for_good(redis: RedisServer, prefix: str, bound: int) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1", bound=bound)
    part = store.keys.partitions[0]
    await build(store, 1)
    await store._redis.ask(part.tag, b"SET", part.written, 900)
    with pytest.raises(FlushQueueFullError):
        await store.write(write_at("s", 2), now=NOW)
    await store.acknowledge([(one, 1) for one in await claimed(store)])  # it is empty: the next one lands
    assert await store.write(write_at("s", 2), now=NOW)
    await store.acknowledge([(one, 2) for one in await claimed(store)])
    assert await claimed(store) == []  # and whoever looks everywhere has counted anew
    for step in range(3, 3 + bound):
        assert await store.write(write_at("s", step), now=NOW)
    with pytest.raises(FlushQueueFullError) as refused:
        await store.write(write_at("s", 3 + bound), now=NOW)
    assert refused.value.waiting == bound
    await store.close()


async def test_teeth_a_store_that_never_counts_anew_leaves_sessions_unflushed_and_refuses_for_good(
    redis: RedisServer, prefix: str
) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1", bound=3)
    store.recount_script = Script.of("return 0")
    store.write_script = Script.of(
        store.write_script.source.decode().replace("and redis.call('XLEN', KEYS[6]) > 0", "")
    )
    part = store.keys.partitions[0]
    await build(store, 3)
    await store._redis.ask(part.tag, b"DEL", part.queue)
    assert await claimed(store, idle=0) == []
    with pytest.raises(FlushQueueFullError):
        await store.write(write_at("s", 4), now=NOW)
    await store.close()


async def test_a_server_that_was_emptied_queues_again_by_itself(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        await build(store, 3)
        queued = await claimed(store)
        server.say("FLUSHALL")
        assert await claimed(store) == []
        assert await store.backlog() == Backlog(0, 0.0, 0)
        await build(store, 2)
        await store.acknowledge([(one, 3) for one in queued])  # of what is no more
        assert (await store.backlog()).entries == 2
        assert firsts(await claimed(store)) == {"s": 1}
        await store.close()


async def test_an_older_file_put_back_brings_its_queue_back(tmp_path: Path) -> None:
    """F09: what was flushed since is claimed once more, which harms nobody."""
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        await build(store, 3)
        queued = await claimed(store)
        server.kill()
        files = {path: path.read_bytes() for path in tmp_path.rglob("*.aof")}
        server.start()
        before = store.generation
        with pytest.raises(StoreUnavailableError):
            await store.acknowledge([(one, 3) for one in queued])
        await store.acknowledge([(one, 3) for one in queued])
        assert (await store.backlog()).entries == 0
        await build(store, 1, session="t")
        assert await store.write(write_at("s", 4), now=NOW)
        assert store.generation > before
        server.kill()
        for path, kept in files.items():
            path.write_bytes(kept)
        server.start()
        before = store.generation
        with pytest.raises(StoreUnavailableError):
            await store.backlog()
        assert firsts(await claimed(store, idle=0)) == {"s": 1}
        assert store.generation > before
        assert (await store.backlog()).entries == 3
        await store.acknowledge([(one, 4) for one in queued])
        assert (await store.backlog()).entries == 0
        await build(store, 2, session="t")
        assert (await store.backlog()).entries == 2
        await store.close()


async def test_workers_that_are_no_more_are_forgotten_once_they_hold_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        await build(store, 1)
        await store.acknowledge([(one, 1) for one in await store.claim("gone", limit=1, idle=LONG)])
        assert await store.write(write_at("s", 2), now=NOW)
        await store.claim("holding", limit=1, idle=LONG)
        part = store.keys.partition(b"s")
        brief = store.claim_script.source.replace(b"3600000", b"-1")
        store.claim_script = type(store.claim_script).of(brief.decode())
        await store.claim("here", limit=1, idle=LONG)
        about = await store._redis.ask(part.tag, b"XINFO", b"CONSUMERS", part.queue, b"flush")
        assert [one[1] for one in about] == [b"holding"]
        await store.close()


async def test_what_one_server_of_a_cluster_has_is_flushed_while_another_is_gone(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as servers:
        for server in servers:
            server.say("CONFIG", "SET", "cluster-require-full-coverage", "no")
        store = await RedisHotStore.open(f"redis+cluster://127.0.0.1:{servers[0].port}")
        for number in range(60):
            assert await store.write(write_at(f"s{number}", 1), now=NOW)
        servers[2].kill()
        queued = await store.claim("a", limit=1_000, idle=LONG)
        assert 20 < len(queued) < 60
        await store.acknowledge([(one, 1) for one in queued])
        with pytest.raises(StoreUnavailableError):  # there is no more but what cannot be asked for
            await store.claim("a", limit=1_000, idle=LONG)
        await asyncio.to_thread(servers[2].start)
        left: list[str] = []
        deadline = asyncio.get_running_loop().time() + 10
        while len(left) + len(queued) < 60 and asyncio.get_running_loop().time() < deadline:
            try:
                left += [one.session for one in await store.claim("a", limit=1_000, idle=LONG, everywhere=False)]
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
        assert len({*left, *(one.session for one in queued)}) == 60
        await store.close()


async def test_a_change_that_is_known_is_told_so_though_the_queue_is_full(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}", bound=2)
    await build(store, 2)
    assert await store.write(write_at("s", 2), now=NOW) is False
    assert await store.write(write_at("s", 3, "c2"), now=NOW) is False
    await store.close()


async def test_f10_a_server_without_memory_takes_no_writes_and_still_lets_go_of_what_it_has(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        await build(store, 2)
        await build(store, 2, session="t")
        server.say("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFullError):
            await store.write(write_at("s", 3), now=NOW)
        with pytest.raises(StoreFullError):
            await store.install(head_at("u", 1), [], [], changes={}, fence=0)
        queued = await claimed(store)
        assert len(queued) == 2
        await store.bury([one for one in queued if one.session == "t"], "torn")
        await store.acknowledge([(one, 1) for one in queued])  # the other one is put on the queue anew
        queued = await claimed(store)
        assert firsts(queued) == {"s": 2}
        await store.acknowledge([(one, 2) for one in queued])
        await store.trim("s", below=2)
        assert await store.evict("s", step=2, now=NOW)
        server.say("CONFIG", "SET", "maxmemory", "0")
        assert await store.exhume() == 1
        assert await store.write(write_at("t", 3), now=NOW)
        await store.close()


# -- what is evicted and installed ---------------------------------------------------------------------------------


async def test_the_size_is_exact(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=3")
    for number in range(30):
        await build(store, 2, session=f"s{number}")
    for number in range(10):
        assert await store.evict(f"s{number}", step=2, now=NOW)
    for number in range(5):
        assert await store.install(head_at(f"s{number}", 2), [], [], changes={}, fence=0)
    assert await store.install(head_at("never here", 2), [], [], changes={}, fence=0)
    size = await store.size()
    assert size.sessions == 26
    told = redis.say("INFO", "memory").decode()
    used = next(int(line.partition(":")[2]) for line in told.splitlines() if line.startswith("used_memory:"))
    assert abs(size.bytes - used) < 1_000_000
    await store.close()


async def test_what_is_kept_of_evicted_sessions_is_bounded_but_for_their_ids(redis: RedisServer, prefix: str) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1")
    for number in range(300):
        name, status = f"s{number}", "discarded" if number % 2 else "draft"
        assert await store.write(write_at(name, 1), now=NOW)
        assert await store.write(write_at(name, 2, commit=False, status=status), now=NOW)
        assert await store.evict(name, step=2, now=NOW)
    part = store.keys.partition(b"s0")
    counts = [
        await store._redis.ask(part.tag, *command)
        for command in ((b"LLEN", part.lately), (b"ZCARD", part.moved), (b"HLEN", part.evicted))
    ]
    assert counts == [256, 256, 256 + 22]  # of the 44 before them those that are not gone
    assert (await store.size()).sessions == 0
    assert await store.write(write_at("s0", 1), now=NOW) is False
    for name in ("s0", "s299"):
        assert await store.install(head_at(name, 2), [], [], changes={}, fence=0)
    assert (await store.size()).sessions == 2
    await store.close()


async def test_r08_fences_grow_even_where_an_evicted_session_has_been_forgotten(
    redis: RedisServer, prefix: str
) -> None:
    """R08: one that was gone is forgotten after a while, and may still come back from the warm tier."""
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}&partitions=1")
    part = store.keys.partitions[0]
    for fence, name in ((7_000, "one"), (9_000, "other"), (8_000, "third")):
        assert await store.install(head_at(name, 2, status="discarded"), [], [], changes={}, fence=fence)
        assert await store.evict(name, step=2, now=NOW)
    for number in range(256):
        assert await store.write(write_at(f"s{number}", 1), now=NOW)
        assert await store.evict(f"s{number}", step=1, now=NOW)
    assert await store._redis.ask(part.tag, b"HEXISTS", part.evicted, "other") == 0
    for name in ("one", "other", "third"):
        assert await store.install(head_at(name, 2, status="discarded"), [], [], changes={}, fence=5)
        lease = await store.acquire(name, "ana", seconds=30, now=NOW)
        assert lease is not None
        assert lease.fence == 9_001
    await store.close()


async def test_a_session_that_comes_to_an_emptied_server_is_counted_with_its_next_write(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        for number in range(3):
            assert await store.write(write_at(f"s{number}", 1, quota=3), now=NOW)
        server.say("FLUSHALL")
        for number in range(3):
            log = [entry_at(f"s{number}", 1)]
            assert await store.install(head_at(f"s{number}", 1), [], log, changes={}, fence=0)
            assert await store.write(write_at(f"s{number}", 2, quota=0), now=NOW)
        with pytest.raises(LimitExceededError):
            await store.write(write_at("s3", 1, quota=3), now=NOW)
        assert await store.write(write_at("s3", 1, quota=4), now=NOW)
        await store.close()


@pytest.mark.parametrize("verb", ["evict", "install", "acknowledge", "exhume"])
async def test_f06_what_was_done_and_not_answered_can_be_asked_for_again(
    redis: RedisServer, prefix: str, verb: str
) -> None:
    async with Proxy(*redis.address).listening() as proxy:
        store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?prefix={prefix}&lanes=1")
        await build(store, 2)
        queued = await claimed(store)
        if verb == "exhume":
            await store.bury(queued, "torn")
        if verb == "install":
            assert await store.evict("s", step=2, now=NOW)
        lost = 0

        def drop(piece: bytes) -> bool:
            nonlocal lost
            lost += piece.startswith(b":")
            return lost == 1 and piece.startswith(b":")

        log = [entry_at("s", step) for step in (1, 2)]
        asked = {
            "evict": lambda: store.evict("s", step=2, now=NOW),
            "install": lambda: store.install(head_at("s", 2), [], log, changes={}, fence=5),
            "acknowledge": lambda: store.acknowledge([(one, 2) for one in queued]),
            "exhume": store.exhume,
        }[verb]
        proxy.drop = drop
        with pytest.raises(StoreUnavailableError):
            await asked()
        proxy.heal()
        await asked()
        here = await store.head("s")
        assert (here is None) is (verb == "evict")
        assert (await store.backlog()).entries == (2 if verb == "exhume" else 0)
        if verb == "install":
            assert await store.entries("s", after=0, limit=9) == log
        await store.close()


async def test_a_session_of_ten_megabytes_comes_back_within_what_a_reply_may_take(
    redis: RedisServer, prefix: str
) -> None:
    store = await RedisHotStore.open(f"{redis.url}?prefix={prefix}")
    items = [SealedItem(b"%d" % number, 1, content(f"{number}", 5_000)) for number in range(2_000)]
    begun = asyncio.get_running_loop().time()
    assert await store.install(head_at("s", 1), items, [entry_at("s", 1)], changes={}, fence=0)
    took = asyncio.get_running_loop().time() - begun
    print(f"install of 10 MB in 2,000 items: {took * 1000:.0f} ms")
    assert took < store._redis.url.timeout
    await store.close()


# -- generations ---------------------------------------------------------------------------------------------------


async def test_the_generation_grows_before_anything_of_a_server_that_was_started_anew_is_told(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        await build(store, 2)
        await asyncio.gather(*(store.entries("s", after=0, limit=9) for _ in range(500)))  # all lanes
        assert store.generation == 0
        for _ in range(3):
            before = store.generation
            server.kill()
            await asyncio.to_thread(server.start)
            for _ in range(100):
                try:
                    head = await store.head("s")
                except StoreUnavailableError:
                    continue
                assert head is not None
                break
            assert store.generation > before
            grown = store.generation
            await asyncio.gather(*(store.entries("s", after=0, limit=9) for _ in range(500)))
            assert store.generation == grown
        await store.close()


async def test_a_connection_that_was_cut_is_another_generation_only_if_the_server_is(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with Proxy(*server.address).listening() as proxy:
            store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}")
            unchecked = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?checks=off")
            for each in (store, unchecked):
                await each.head("s")
            before = store.generation, unchecked.generation
            proxy.cut()
            for each in (store, unchecked):
                for _ in range(50):
                    try:
                        await each.head("s")
                        break
                    except StoreUnavailableError:
                        continue
            assert store.generation == before[0]
            assert unchecked.generation > before[1]  # there nothing tells, so that each may be another one
            for each in (store, unchecked):
                await each.close()


async def test_a_master_that_was_a_replica_meanwhile_is_another_generation(tmp_path: Path) -> None:
    """It is the same process, and what it holds is what another one held."""
    with redis_server(tmp_path / "one") as server, redis_server(tmp_path / "other") as other:
        store = await RedisHotStore.open(f"{server.url}?lanes=1")
        await build(store, 2)
        server.say("REPLICAOF", "127.0.0.1", str(other.port))
        deadline = asyncio.get_running_loop().time() + 20
        while b"master_link_status:up" not in server.say("INFO", "replication"):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        before = store.generation
        with pytest.raises(StoreUnavailableError):
            await store.write(write_at("s", 3), now=NOW)
        server.say("REPLICAOF", "NO", "ONE")
        assert await store.head("s") is None  # all it held is gone
        assert store.generation > before
        await store.close()
