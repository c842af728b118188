"""An object server that the tests of a worker share, and credentials for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from holdfast.testing.objects import Gateway, ObjectServer, give_credentials, object_server

_number = count(1)


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """moto's server, with the bucket ``holdfast``."""
    with object_server(tmp_path_factory.mktemp("objects")) as server:
        server.make("holdfast")
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment, and nothing else for S3."""
    give_credentials(monkeypatch)


@pytest.fixture
def place(credentials: None) -> str:
    """A bucket and a prefix that nobody has used."""
    return f"holdfast/test/{next(_number)}"


@pytest.fixture
async def gateway(objects: ObjectServer) -> AsyncIterator[Gateway]:
    """A gateway before the server."""
    async with Gateway(objects.address).listening() as gateway:
        yield gateway
