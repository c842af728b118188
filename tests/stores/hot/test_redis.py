"""The hot store in Redis keeps the port's promises."""

from __future__ import annotations

from functools import partial

import pytest

from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing import flushqueue
from holdfast.testing.hot import HotStoreSuite
from holdfast.testing.hot_handles import Connect
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiered import TieredHotStoreSuite

PATIENT = 10.0
"""Seconds for a reply: none of these tests is about a server that does not answer, and the machine may be busy."""


class TestRedisHotStore(HotStoreSuite):
    @pytest.fixture
    def connect(self, redis: RedisServer, prefix: str) -> Connect:
        return partial(RedisHotStore.open, redis.url, prefix=prefix, timeout=PATIENT)


class TestRedisHotStoreOnACluster(HotStoreSuite):
    @pytest.fixture
    def connect(self, cluster: list[RedisServer], prefix: str) -> Connect:
        return partial(RedisHotStore.open, cluster_url(cluster), prefix=prefix, timeout=PATIENT)


class TestTheTiersOnRedis(TieredHotStoreSuite):
    @pytest.fixture
    def connect(self, redis: RedisServer, prefix: str) -> flushqueue.Connect:
        return partial(RedisHotStore.open, redis.url, prefix=prefix, timeout=PATIENT)

    @pytest.fixture
    def narrow(self, redis: RedisServer, prefix: str) -> flushqueue.Connect:
        return partial(RedisHotStore.open, redis.url, prefix=prefix, timeout=PATIENT, bound=flushqueue.BOUND)


class TestTheTiersOnACluster(TieredHotStoreSuite):
    @pytest.fixture
    def connect(self, cluster: list[RedisServer], prefix: str) -> flushqueue.Connect:
        return partial(RedisHotStore.open, cluster_url(cluster), prefix=prefix, timeout=PATIENT)

    @pytest.fixture
    def narrow(self, cluster: list[RedisServer], prefix: str) -> flushqueue.Connect:
        return partial(RedisHotStore.open, cluster_url(cluster), prefix=prefix, timeout=PATIENT, bound=flushqueue.BOUND)


def cluster_url(cluster: list[RedisServer]) -> str:
    return f"redis+cluster://127.0.0.1:{cluster[0].port}"
