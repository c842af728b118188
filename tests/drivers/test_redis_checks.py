"""A Redis server that may lose what it acknowledged is refused, with what to set."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError, StoreFullError, StoreUnavailableError
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.proxy import Proxy
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer, free_port, redis_cluster, redis_server


async def refused(url: str) -> str:
    """What the store says that does not open."""
    with pytest.raises(ConfigurationError) as error:
        await RedisHotStore.open(url)
    return error.value.reason


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_f10_a_server_that_evicts_is_refused(tmp_path: Path, policy: str) -> None:
    with redis_server(tmp_path, maxmemory_policy=policy) as server:
        for durability in ("disk", "hot"):
            assert "set maxmemory-policy noeviction" in await refused(f"{server.url}?durability={durability}")


@pytest.mark.parametrize(
    ("settings", "say"),
    [
        ({"appendonly": "no"}, "set appendonly yes and appendfsync always, or durability=hot"),
        ({"appendfsync": "everysec"}, "set appendfsync always, or durability=hot"),
        ({"appendfsync": "no"}, "set appendfsync always, or durability=hot"),
    ],
)
async def test_f04_a_server_that_syncs_later_than_is_promised_is_refused(
    tmp_path: Path, settings: dict[str, str], say: str
) -> None:
    with redis_server(tmp_path, **settings) as server:
        assert say in await refused(server.url)
        store = await RedisHotStore.open(f"{server.url}?durability=hot")
        assert await store.write(write_at("s", 1), now=NOW)
        await store.close()


async def test_a_server_that_comes_back_weaker_is_not_written_to(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        assert await store.write(write_at("s", 1), now=NOW)
        server.kill()
        server.settings["appendfsync"] = "everysec"
        server.start()
        await asyncio.sleep(0.05)  # the connection is seen to be closed
        with pytest.raises(StoreUnavailableError, match="set appendfsync always"):
            await store.write(write_at("s", 2), now=NOW)
        server.kill()
        server.settings["appendfsync"] = "always"
        server.start()
        await asyncio.sleep(0.05)
        assert await store.write(write_at("s", 2), now=NOW)
        await store.close()


async def test_a_server_that_does_not_tell_its_settings_is_refused_unless_its_keeper_answers_for_it(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as server:
        server.say("ACL", "SETUSER", "app", "on", ">word", "~*", "&*", "+@all", "-config")
        url = f"redis://app:word@127.0.0.1:{server.port}"
        said = await refused(url)
        assert "allow CONFIG GET" in said
        assert "checks=off" in said
        store = await RedisHotStore.open(f"{url}?checks=off")
        assert await store.write(write_at("s", 1), now=NOW)
        await store.close()


async def test_a_wrong_password_is_a_matter_of_the_settings_and_is_not_shown(tmp_path: Path) -> None:
    with redis_server(tmp_path, requirepass="right") as server:
        for url in (f"redis://:wrong@127.0.0.1:{server.port}", server.url):
            said = await refused(url)
            assert "the password" in said
            assert "wrong" not in said
        store = await RedisHotStore.open(f"redis://:right@127.0.0.1:{server.port}")
        await store.close()


async def test_a_replica_takes_no_writes_and_is_refused(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "one") as one,
        redis_server(tmp_path / "two", replicaof=f"127.0.0.1 {one.port}") as two,
        pytest.raises(StoreUnavailableError, match="a replica"),
    ):
        await RedisHotStore.open(two.url)


async def test_one_server_and_a_cluster_are_not_taken_for_each_other(tmp_path: Path) -> None:
    with redis_cluster(tmp_path / "cluster", 1) as (server,):
        assert "redis+cluster://" in await refused(server.url)
    with redis_server(tmp_path / "one") as server, pytest.raises((ConfigurationError, StoreUnavailableError)):
        await RedisHotStore.open(f"redis+cluster://127.0.0.1:{server.port}")


async def test_where_there_is_nobody_the_store_is_unavailable() -> None:
    for scheme in ("redis", "redis+cluster"):
        with pytest.raises(StoreUnavailableError):
            await RedisHotStore.open(f"{scheme}://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailableError, match="no sentinel knows"):
        await RedisHotStore.open(f"redis+sentinel://127.0.0.1:{free_port()}/main")


async def test_the_store_follows_the_sentinels_to_a_new_master(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "one") as one,
        redis_server(tmp_path / "two", replicaof=f"127.0.0.1 {one.port}") as two,
    ):
        sentinel = _sentinel(tmp_path / "sentinel", one)
        try:
            store = await RedisHotStore.open(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
            assert await store.write(write_at("s", 1), now=NOW)
            two.say("REPLICAOF", "NO", "ONE")
            one.kill()
            with pytest.raises(StoreUnavailableError):
                await store.head("s")
            sentinel.say("SENTINEL", "REMOVE", "main")
            sentinel.say("SENTINEL", "MONITOR", "main", "127.0.0.1", str(two.port), "1")
            assert await store.write(write_at("t", 1), now=NOW)
            await store.close()
        finally:
            sentinel.kill()


def _sentinel(folder: Path, master: RedisServer) -> RedisServer:
    folder.mkdir()
    (folder / "sentinel.conf").write_text(f"sentinel monitor main 127.0.0.1 {master.port} 1\n")
    return RedisServer.sentinel(folder).start()


async def test_a_server_without_memory_takes_no_writes_and_lets_go_of_what_is_not_wanted(tmp_path: Path) -> None:
    """F10: nothing is lost, nothing half done, and what frees memory still works."""
    with redis_server(tmp_path, maxmemory="4mb") as server:
        store = await RedisHotStore.open(server.url)
        big = {b"i": bytes(100_000)}
        written = 0
        with contextlib.suppress(StoreFullError):
            while written < 200 and await store.write(write_at(f"s{written}", 1, items=big), now=NOW):
                written += 1
        assert written < 200
        assert written > 5
        for number in range(written):
            loaded = await store.load(f"s{number}")
            assert loaded is not None
            assert len(loaded[1]) == 1
        assert await store.head(f"s{written}") is None
        with pytest.raises(StoreFullError):
            await store.write(write_at("s0", 2, items=big), now=NOW)
        assert await store.head("s0") == write_at("s0", 1).head
        for number in range(written - 1):
            await store.purge(f"s{number}")
        assert await store.write(write_at("t", 1, items=big), now=NOW)
        await store.close()


async def test_a_connection_through_a_proxy_is_checked_like_any_other(tmp_path: Path) -> None:
    with redis_server(tmp_path, appendfsync="no") as server:
        async with Proxy(*server.address).listening() as proxy:
            assert "appendfsync" in await refused(f"redis://127.0.0.1:{proxy.port}")
