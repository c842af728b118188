"""What the service cannot read by itself, the issuer's keys and the revocations: it is told, and the probe says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.errors import StoreUnavailableError
from holdfast.ports.warm import WarmStore
from holdfast.service.auth import keys, revoked
from holdfast.settings import Settings
from holdfast.testing.front import ANA, Front, opened
from holdfast.testing.issuer import Issuer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
async def published() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Where an issuer publishes its keys, and what it says there; while that is nothing, it hangs up."""
    said: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for one in said[:1]:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(one), one))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys.json", said


async def counted(front: Front, what: str) -> float:
    """How many failures of a kind the figures tell of."""
    told = (await front.service.meters.render()).decode()
    found = [line for line in told.splitlines() if line.startswith(f'holdfast_failures_total{{what="{what}"}}')]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def lines(capfd: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]


async def test_a_service_that_never_had_its_issuer_s_keys_is_not_ready_and_says_why(
    believing: Settings, published: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(keys, "APART_SECONDS", 0.0)  # how long it would wait before it asks again
    url, said = published
    issuer = Issuer("ES")
    chosen = replace(believing, auth=issuer.auth(url), service=replace(believing.service, log="warning"))
    async with opened(chosen, issuer) as front:
        nobody, ana = await front.client(None), await front.client(ANA)
        answer = await nobody.get("/health/ready")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (await nobody.get("/health/live")).status_code == 200
        assert (await ana.get("/v1/whoami")).status_code == 503
        assert await counted(front, "keys") >= 1
        assert "keys_failed" in {line["event"] for line in lines(capfd)}
        said.append(json.dumps({"keys": [issuer.public()]}).encode())
        assert (await ana.get("/v1/whoami")).json()["id"] == "ana"
        assert (await nobody.get("/health/ready")).status_code == 200
        said[:] = []
        failures = await counted(front, "keys")
        unknown = issuer.token(header={"kid": "another"})
        answer = await nobody.get("/v1/whoami", headers={"authorization": f"Bearer {unknown}"})
        assert answer.status_code == 503
        assert await counted(front, "keys") == failures + 1
        assert (await nobody.get("/health/ready")).status_code == 200  # the keys it had hold
        assert (await ana.get("/v1/whoami")).status_code == 200


class Unread:
    """A warm store whose revocations cannot be read while ``failing``."""

    failing = False

    def __init__(self, store: WarmStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def revoked(self, **about: Any) -> Any:
        if self.failing:
            raise StoreUnavailableError("warm", "gone")
        return await self._store.revoked(**about)


async def test_revocations_that_cannot_be_read_are_told(
    believing: Settings, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(revoked, "EVERY", 0.001)
    monkeypatch.setattr(revoked, "STALE", 0.0)
    stores: list[Unread] = []

    def wrap(store: WarmStore) -> Any:
        stores.append(Unread(store))
        return stores[-1]

    chosen = replace(believing, service=replace(believing.service, log="warning"))
    async with opened(chosen, issuer, wrap_warm=wrap) as front:
        assert await counted(front, "revocations") == 0
        assert "revocations_failed" not in {line["event"] for line in lines(capfd)}
        stores[0].failing = True
        async with asyncio.timeout(30):
            while await counted(front, "revocations") < 2:
                await asyncio.sleep(0.01)
        told = [line for line in lines(capfd) if line["event"] == "revocations_failed"]
        assert {line["code"] for line in told} == {"store-unavailable"}
        assert (await (await front.client(ANA)).get("/v1/whoami")).status_code == 200  # the last list holds


async def test_a_service_that_has_its_keys_or_needs_none_is_ready(front: Front, local: Any) -> None:
    assert (await (await front.client(None)).get("/health/ready")).status_code == 200
    assert (await local.get("/health/ready")).status_code == 200
