"""A Redis server that comes back empty is noticed, by every process, and begun anew as all of them know it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError, StoreUnavailableError
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.hot_handles import build
from holdfast.testing.proxy import Proxy
from holdfast.testing.samples import NOW, entry_at, head_at, write_at
from holdfast.testing.servers import RedisServer, redis_cluster, redis_server

_PATIENCE = 20.0


async def asked(store: RedisHotStore) -> bool:
    """Whether it is whole, from a server that may have to be found again."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while True:
        try:
            return await store.whole()
        except StoreUnavailableError:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)


class NeverLooks(RedisHotStore):
    async def whole(self) -> bool:
        return True


class LooksForTheLayoutOnly(RedisHotStore):
    """Whoever comes first makes it anew, and nobody else is told."""

    async def whole(self) -> bool:
        return not await self._redis.ask(self.keys.root, b"HSETNX", self.keys.layout, b"format", 1)


class AgreesWithAnything(RedisHotStore):
    """Goes on in its own partitions, whatever those of the others are."""

    async def whole(self) -> bool:
        try:
            return await super().whole()
        except ConfigurationError:
            return True


def empty(server: RedisServer, way: str) -> None:
    """By somebody's hand, or because its disk was replaced."""
    if way == "restart":
        server.kill()
        shutil.rmtree(server.folder)
        server.start()
    else:
        server.say("FLUSHALL")


async def emptied(kind: type[RedisHotStore], server: RedisServer, way: str) -> None:
    """Every process is told once, and can use it again."""
    stores = [await kind.open(server.url) for _ in range(2)]
    try:
        await build(stores[0], 3)
        for store in stores:
            assert await store.whole()
        await asyncio.to_thread(empty, server, way)
        for store in stores:
            before = store.generation
            assert not await asked(store)
            assert store.generation > before
            grown = store.generation
            assert await store.whole()
            assert store.generation == grown
        for name, store in zip(("s", "t"), stores, strict=True):
            assert await store.install(head_at(name, 3), [], [entry_at(name, 3)], changes={}, fence=0)
            assert await store.write(write_at(name, 4), now=NOW)
        third = await kind.open(server.url)
        stores.append(third)
        for store in stores:
            assert await store.whole()
    finally:
        for store in stores:
            await store.close()


@pytest.mark.parametrize("way", ["flush", "restart"])
async def test_every_process_is_told_once_that_a_server_came_back_empty(tmp_path: Path, way: str) -> None:
    with redis_server(tmp_path / "redis") as server:
        await emptied(RedisHotStore, server, way)


@pytest.mark.parametrize("broken", [NeverLooks, LooksForTheLayoutOnly])
async def test_teeth_a_store_that_does_not_look_or_looks_for_the_layout_only_tells_not_everybody(
    tmp_path: Path, broken: type[RedisHotStore]
) -> None:
    with redis_server(tmp_path / "redis") as server:
        with pytest.raises(AssertionError):
            await emptied(broken, server, "flush")
        await emptied(RedisHotStore, server, "flush")


async def test_a_server_that_was_emptied_behind_a_cut_connection_is_found_out(tmp_path: Path) -> None:
    """The server is the same, so that the connection alone tells nothing."""
    with redis_server(tmp_path) as server:
        async with Proxy(*server.address).listening() as proxy:
            store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}")
            await build(store, 2)
            proxy.cut()
            server.say("FLUSHALL")
            before = store.generation
            assert not await asked(store)
            assert store.generation > before
            assert await store.whole()
            await store.close()


async def test_a_server_that_was_started_anew_on_its_data_is_whole(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        await build(store, 2)
        server.kill()
        await asyncio.to_thread(server.start)
        assert await asked(store)
        assert store.generation == 1  # because of the new connection
        await store.close()


async def begun_in_another_way(kind: type[RedisHotStore], server: RedisServer) -> None:
    store = await kind.open(server.url)
    server.say("FLUSHALL")
    other = await kind.open(f"{server.url}?partitions=8")
    try:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="partitions=8"):
                await store.whole()
        assert await other.whole()
        assert not server.say("EXISTS", store.keys.partitions[9].mark.decode()).startswith(b":1")
    finally:
        for each in (store, other):
            await each.close()


async def test_an_emptied_server_that_was_begun_with_other_partitions_is_refused_with_what_to_set(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as server:
        await begun_in_another_way(RedisHotStore, server)
        server.say("FLUSHALL")
        with pytest.raises(pytest.fail.Exception):
            await begun_in_another_way(AgreesWithAnything, server)


async def test_one_server_of_a_cluster_that_was_emptied_is_noticed(tmp_path: Path) -> None:
    """Each of them, also those that do not keep the layout."""
    with redis_cluster(tmp_path) as servers:
        store = await RedisHotStore.open(f"redis+cluster://127.0.0.1:{servers[0].port}")
        await build(store, 2)
        assert await store.whole()
        for server in servers:
            server.say("FLUSHALL")
            assert not await store.whole()
            assert await store.whole()
        await store.close()


async def test_f10_a_server_without_memory_can_still_be_asked_whether_it_is_whole(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        await build(store, 2)
        server.say("CONFIG", "SET", "maxmemory", "1")
        assert await store.whole()
        other = await RedisHotStore.open(server.url)
        assert await other.whole()
        for each in (store, other):
            await each.close()
