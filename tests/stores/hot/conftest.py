"""A cluster for the tests of the hot tier, and a prefix of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from holdfast.testing.servers import RedisServer, redis_cluster

_PREFIXES = count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A cluster of three that the tests of a worker share, each with a prefix of its own."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def prefix() -> str:
    """What no other test's keys begin with."""
    return f"test-{next(_PREFIXES)}"
