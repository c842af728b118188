"""Redis servers for the tests of the hot tier: one for a file of tests, with a prefix of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from holdfast.testing.servers import RedisServer, redis_cluster, redis_server

_PREFIXES = count(1)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that keeps the promise."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A cluster of three."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def prefix() -> str:
    """What no other test's keys begin with."""
    return f"test-{next(_PREFIXES)}"
