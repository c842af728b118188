"""The hot store in Redis keeps the port's promises."""

from __future__ import annotations

from functools import partial

import pytest

from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.handles import Connect
from holdfast.testing.hot import HotStoreSuite
from holdfast.testing.servers import RedisServer


class TestRedisHotStore(HotStoreSuite):
    @pytest.fixture
    def connect(self, redis: RedisServer, prefix: str) -> Connect:
        return partial(RedisHotStore.open, redis.url, prefix=prefix)


class TestRedisHotStoreOnACluster(HotStoreSuite):
    @pytest.fixture
    def connect(self, cluster: list[RedisServer], prefix: str) -> Connect:
        where = cluster[0].url.removeprefix("redis://")
        return partial(RedisHotStore.open, f"redis+cluster://{where}", prefix=prefix)
