"""A fleet does what tests that use it rely on: its parts can be cut off, held still, killed and had back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from holdfast.testing.doors import Door, callers
from holdfast.testing.fleet import fleet
from holdfast.testing.peers import Answer

pytestmark = pytest.mark.no_cover  # repeats what others measure once

PATIENCE = 20.0


async def ask(door: Door, method: str, target: str, *fields: str, body: object = None) -> Answer:
    """One request on a connection of its own."""
    async with callers([door]) as (caller,):
        return await caller.ask(method, target, *fields, body=body)


async def until(tell: Callable[[], Awaitable[bool]]) -> float:
    """Wait until something is so; the seconds it took."""
    begun = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        while not await tell():
            await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def test_replicas_and_what_they_share_can_be_cut_off_held_still_and_had_back(tmp_path: Path) -> None:
    async with fleet(tmp_path, 2, proxied=True) as both:
        one, other = both.doors
        made = await ask(one, "POST", "/v1/sessions", body={"kind": "knowledge", "title": "Tides"})
        session, tag = f"/v1/sessions/{made.json['id']}", made.headers["etag"]
        assert (await ask(other, "GET", session)).headers["etag"] == tag

        async def readable() -> bool:
            return (await ask(one, "GET", session)).status == 200

        async def stale() -> bool:
            return "holdfast-stale" in (await ask(one, "GET", session)).headers

        async def writable() -> bool:
            change = {"changes": [{"put": "chunks/1", "body": {"text": str(time.monotonic())}}]}
            version = (await ask(one, "GET", f"{session}/header")).json["version"]
            return (await ask(other, "PATCH", session, f'If-Match: "{version}"', body=change)).status == 200

        assert both.to_redis is not None
        await until(writable)
        assert (await ask(one, "POST", "/v1/tiers/flush")).status == 200
        both.to_redis.hole = True
        gone = await until(stale)
        both.to_redis.heal()
        back = await until(writable)
        await both.restart_redis(0.2)
        await until(writable)
        await both.restart_postgres(0.2)
        await until(writable)
        assert both.to_postgres is not None
        both.to_postgres.cut()
        await until(writable)

        both.pause(0)
        assert (await ask(other, "GET", session)).status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask(one, "GET", session)
        both.go_on(0)
        await until(readable)
        before = one.address
        await both.kill(0)
        assert both.up == [1]
        with pytest.raises(OSError, match="Connect"):
            await ask(one, "GET", session)
        await both.start(0)
        assert (both.up, one.address == before) == ([0, 1], False)
        await until(readable)
        both.pause(1)  # and the fleet ends all the same
    print(f"fleet: read-only {gone:.2f} s after Redis fell silent, writable {back:.2f} s after it was back")
