"""A service whose cold tier cannot be used starts, says so in its log, and tells the operator why."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.service import app
from holdfast.settings import Settings
from holdfast.testing.front import ADMIN, ANA, Front, opened
from holdfast.testing.issuer import Issuer
from holdfast.testing.objects import Answer, Fault, Gateway, ObjectServer
from holdfast.testing.servers import free_port

TOLD = 10.0
"""Seconds within which the line is written."""

Capture = pytest.CaptureFixture[str]


def lines(capfd: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]


def chosen(believing: Settings, cold: str) -> Settings:
    return replace(believing, cold=cold, service=replace(believing.service, log="warning"))


async def told(capfd: Capture) -> dict[str, Any]:
    """The line about the cold tier, once it is written."""
    async with asyncio.timeout(TOLD):
        while True:
            for line in lines(capfd):
                if line["event"] == "cold_failed":
                    return line
            await asyncio.sleep(0.02)


async def check_it_is_told(front: Front, capfd: Capture, reason: str) -> None:
    """It takes requests, its log has a warning with the reason, and so has what the operator asks for."""
    nobody, ana, ada = await front.client(None), await front.client(ANA), await front.client(ADMIN)
    assert (await nobody.get("/health/ready")).status_code == 200
    await front.make()
    line = await told(capfd)
    assert (line["level"], line["reason"]) == ("warning", reason)
    assert (await ada.get("/v1/tiers")).json()["troubles"] == {"cold": reason}
    health = (await ana.get("/health")).json()
    assert (health["status"], health["tiers"]["hot"]) == ("degraded", "ok")
    assert health["tiers"]["cold"] in ("store-unavailable", "store-down")


WRONG = {
    "no such bucket": "it answered 404 NoSuchBucket",
    "access denied": "it answered 403 AccessDenied",
    "another endpoint": "no connection",
    "silent": "no answer within 1 s",
}


async def start(how: str, believing: Settings, issuer: Issuer, objects: ObjectServer, capfd: Capture) -> None:
    async with Gateway(objects.address).listening() as gateway:
        cold = gateway.url("not-there/start" if how == "no such bucket" else "holdfast/start", timeout="1")
        if how == "access denied":
            gateway.rule = lambda asked: Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if how == "silent":
            gateway.rule = lambda asked: Fault(late=60)
        if how == "another endpoint":
            cold = f"s3://holdfast/start?endpoint=http://127.0.0.1:{free_port()}&timeout=1"
        async with opened(chosen(believing, cold), issuer) as front:
            await check_it_is_told(front, capfd, WRONG[how])


@pytest.mark.parametrize("how", WRONG)
async def test_a_service_whose_cold_tier_is_set_wrong_starts_and_says_why(
    how: str, believing: Settings, issuer: Issuer, objects: ObjectServer, credentials: None, capfd: Capture
) -> None:
    await start(how, believing, issuer, objects, capfd)


async def test_the_reason_is_told_while_the_store_is_given_a_rest_too(
    believing: Settings, issuer: Issuer, objects: ObjectServer, credentials: None
) -> None:
    """A breaker that is open would know no more than that it is down."""
    async with Gateway(objects.address).listening() as gateway:
        cold = gateway.url("not-there/rest", timeout="1")
        async with opened(chosen(believing, cold), issuer) as front:
            ada = await front.client(ADMIN)
            for _ in range(8):
                assert (await ada.get("/v1/tiers")).json()["troubles"] == {"cold": WRONG["no such bucket"]}
            assert (await ada.get("/health")).json()["tiers"]["cold"] == "store-down"
            gateway.rule = lambda asked: Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")  # as if it were made now
            async with asyncio.timeout(10):
                while (await ada.get("/v1/tiers")).json()["troubles"]:
                    await asyncio.sleep(0.1)


async def test_a_cold_tier_that_answers_leaves_no_line(
    believing: Settings, issuer: Issuer, objects: ObjectServer, credentials: None, capfd: Capture
) -> None:
    async with Gateway(objects.address).listening() as gateway:
        async with opened(chosen(believing, gateway.url("holdfast/well")), issuer):
            async with asyncio.timeout(10):
                while not gateway.asked:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
        assert [line["event"] for line in lines(capfd)] == []


async def test_teeth_a_service_that_does_not_ask_would_be_caught(
    believing: Settings,
    issuer: Issuer,
    objects: ObjectServer,
    credentials: None,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(*given: object) -> None:
        return

    monkeypatch.setattr(app, "_ask_cold", silent)
    monkeypatch.setitem(globals(), "TOLD", 2.0)
    with pytest.raises(TimeoutError):
        await start("no such bucket", believing, issuer, objects, capfd)
