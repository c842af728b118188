"""What the tests of the service start from: the application in this process, and a client of it for each principal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI
from msgspec.structs import replace

from holdfast.service.app import create_app
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.document import Operation, operations
from holdfast.testing.front import ANA, Front, opened
from holdfast.testing.issuer import Issuer


@pytest.fixture
def issuer() -> Issuer:
    """Who issues the tokens that the service believes."""
    return Issuer("HS")


@pytest.fixture
def believing(settings: Settings, issuer: Issuer) -> Settings:
    """Settings of a service that believes the issuer, says little, and is asked as often as one likes."""
    bounds = replace(settings.service, rate=1_000_000, burst=1_000_000, log="error")
    return replace(settings, auth=issuer.auth(), service=bounds, sweep=3_600.0)


@pytest.fixture
async def front(believing: Settings, issuer: Issuer, clock: ManualClock) -> AsyncIterator[Front]:
    """The application, open, on the clock of the test; nothing is swept but by the test."""
    async with opened(believing, issuer, clock=clock) as front:
        yield front


@pytest.fixture
async def ana(front: Front) -> httpx2.AsyncClient:
    """A client of somebody without a service role."""
    return await front.client(ANA)


@pytest.fixture
async def nobody(front: Front) -> httpx2.AsyncClient:
    """A client without a token."""
    return await front.client(None)


@pytest.fixture
async def local(settings: Settings, issuer: Issuer) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service in local mode, with the token of the home."""
    quiet = replace(settings.service, log="error")
    async with opened(replace(settings, service=quiet), issuer) as front:
        client = await front.client(None)
        client.headers["authorization"] = f"Bearer {(settings.home / 'token').read_text().strip()}"
        yield client


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The application of a home; nothing is opened, for the document needs no engine."""
    return create_app(Settings(home=Path(tmp_path_factory.mktemp("home"))))


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    """The document as it is sent."""
    return dict(msgspec.json.decode(msgspec.json.encode(app.openapi())))


@pytest.fixture(scope="module")
def told(document: dict[str, Any]) -> list[Operation]:
    return operations(document)
