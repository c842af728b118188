"""What the tests of the client start from: a real service in a process of its own, and clients of several people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from holdfast.client import Client
from holdfast.settings import Settings
from holdfast.settings.sections import Service
from holdfast.testing.issuer import Issuer
from holdfast.testing.serving import Served, served

ISSUER = Issuer("HS")
ROLES = {"ada": ["admin", "operator"], "otto": ["auditor"]}
ITEMS = [("chunks/1", {"text": "one"}), ("chunks/2", {"text": "two"}), ("chunks/3", {"text": "three"})]

Connect = Callable[..., Awaitable[Client]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A service that believes an issuer; one for all tests of a file."""
    home = tmp_path_factory.mktemp("service") / "home"
    bounds = Service(rate=100_000, burst=100_000, heartbeat=0.2)
    async with served(Settings(home=home, auth=ISSUER.auth(), service=bounds), home=home) as running:
        yield running


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """Who issues the tokens that the service believes."""
    return ISSUER


@pytest.fixture
def token_of() -> Callable[..., str]:
    """Makes a token of somebody: ada is an admin and operator, otto an auditor. Claims go over what it says."""
    return lambda name, **claims: ISSUER.token(name, **{"roles": ROLES.get(name, []), **claims})


@pytest.fixture
async def connect(service: Served, token_of: Callable[..., str]) -> AsyncIterator[Connect]:
    """Opens a client of somebody, ana if nobody is named; it is closed after the test."""
    async with AsyncExitStack() as stack:

        async def connected(name: str = "ana", address: str | None = None, **more: Any) -> Client:
            client = Client(address or service.address, token=token_of(name), **more)
            return await stack.enter_async_context(client)

        yield connected


@pytest.fixture
async def client(connect: Connect) -> Client:
    """A client of ana's."""
    return await connect()


@pytest.fixture
async def session(client: Client) -> str:
    """The id of a draft of three chunks."""
    return str((await client.create(kind="knowledge", title="Tides", items=ITEMS)).id)
